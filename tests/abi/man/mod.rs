//! The man pages in docs/man: the comments of the headers are the manual (A2).
//!
//! `KEEPSOCK_BLESS=1 cargo test --all-features --test abi man::` writes them.

mod pages;
mod text;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::header::generated;
use crate::support::header;
use pages::pages;

const BLESS: &str = "KEEPSOCK_BLESS=1 cargo test --all-features --test abi man::";

/// The directories below docs/man.
const SECTIONS: [&str; 2] = ["man3", "man7"];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/man")
}

/// The pages for the current sources, in the same form as [`committed`]. The first call writes them, if
/// that is requested: the other tests must not read a part of them.
fn current() -> &'static BTreeMap<String, String> {
    static PAGES: OnceLock<BTreeMap<String, String>> = OnceLock::new();
    PAGES.get_or_init(|| {
        let headers = generated().unwrap_or_else(|faults| panic!("{faults}"));
        let pages = pages(headers).unwrap_or_else(|faults| panic!("{faults}"));
        if std::env::var_os("KEEPSOCK_BLESS").is_some() {
            write(&pages);
        }
        pages
    })
}

/// The committed pages: the path below docs/man, and the text.
fn committed() -> BTreeMap<String, String> {
    let mut pages = BTreeMap::new();
    for section in SECTIONS {
        let Ok(files) = fs::read_dir(folder().join(section)) else { continue };
        for file in files {
            let path = file.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            pages.insert(format!("{section}/{name}"), fs::read_to_string(path).unwrap());
        }
    }
    pages
}

/// Writes the pages, and removes those of declarations that no longer exist.
fn write(pages: &BTreeMap<String, String>) {
    for section in SECTIONS {
        fs::create_dir_all(folder().join(section)).unwrap();
    }
    let old = committed();
    for path in old.keys().filter(|path| !pages.contains_key(*path)) {
        fs::remove_file(folder().join(path)).unwrap();
    }
    for (path, text) in pages.iter().filter(|(path, text)| old.get(*path) != Some(text)) {
        let path = folder().join(path);
        fs::write(path, text).unwrap();
    }
}

fn faults(pages: &BTreeMap<String, String>, committed: &BTreeMap<String, String>) -> Vec<String> {
    let all: BTreeSet<_> = pages.keys().chain(committed.keys()).collect();
    let faults = all.into_iter().filter_map(|path| match (pages.get(path), committed.get(path)) {
        (Some(new), Some(old)) if new == old => None,
        (Some(new), Some(old)) => {
            let same = new.lines().zip(old.lines()).take_while(|(new, old)| new == old).count();
            Some(format!("docs/man/{path} is out of date at line {}", same + 1))
        }
        (Some(_), None) => Some(format!("docs/man/{path} is missing")),
        (None, _) => Some(format!("docs/man/{path} describes nothing that a header declares")),
    });
    faults.collect()
}

/// A2: the committed pages are the generated pages, and there are no others.
#[test]
fn man_pages_are_up_to_date() {
    let faults = faults(current(), &committed());
    assert!(faults.is_empty(), "{}\n\nThe pages are written by {BLESS}", faults.join("\n"));
}

/// A2: each declaration of each header has a page.
#[test]
fn each_declaration_has_a_man_page() {
    let headers = generated().unwrap_or_else(|faults| panic!("{faults}"));
    let text: String = headers.iter().map(|(_, text)| text.as_str()).collect();
    let items = header::items(&text);
    assert!(items.len() > 300, "only {} declarations", items.len());
    let pages = items.iter().map(|item| format!("man3/{}.3", item.name()));
    let missing: Vec<_> = pages.filter(|page| !current().contains_key(page)).collect();
    assert!(missing.is_empty(), "no page: {missing:?}");
}

/// Checks pages with a program, which prints its warnings.
fn check(program: &str, arguments: &[&str]) {
    let paths = current().keys().map(|path| folder().join(path));
    let output = match Command::new(program).args(arguments).args(paths).output() {
        Ok(output) => output,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let reason = format!("{program} is missing");
            assert!(std::env::var("CI").as_deref() != Ok("true"), "{reason}");
            return println!("skipped: {reason}");
        }
        Err(error) => panic!("{program}: {error}"),
    };
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(output.status.success() && text.trim().is_empty(), "{program}:\n{text}");
}

#[test]
fn groff_formats_man_pages_without_a_warning() {
    check("groff", &["-man", "-ww", "-z"]);
}

#[test]
fn mandoc_finds_no_fault_in_man_pages() {
    check("mandoc", &["-Tlint", "-W", "warning"]);
}

// ---- the checks find their faults ------------------------------------------------------------------

/// The pages of a library with one header.
fn pages_of(declarations: &str) -> Result<BTreeMap<String, String>, String> {
    let topic = format!(
        "/**\n * @file keepsock/read.h\n * @brief Reading.\n *\n * @since 0.1, unless later.\n */\n\
         extern \"C\" {{\n/*\n * ---- 1. Reading ----\n */\n{declarations}"
    );
    let first = "/**\n * @file keepsock.h\n * @brief Sockets.\n *\n * Conventions\n *\n * - One.\n *\n \
                 * Index by task\n *\n * Reading\n *   Read\n *     read.h 1: keepsock_read\n */\n";
    let headers = [("keepsock/read.h", topic.as_str()), ("keepsock.h", first)];
    pages(&headers.map(|(path, text)| (path.to_owned(), text.to_owned())))
}

const READ: &str = "/**\n * Reads a byte.\n *\n * It waits. keepsock_peek() does not.\n *\n\
    * @param at  The place, from 0.\n * @return KEEPSOCK_OK on success, otherwise\n\
    *   - KEEPSOCK_ERR_CLOSED: the socket\n *     is closed\n */\n\
    int32_t keepsock_read(int at, keepsock_error **error);\n\
    /** Looks at a byte. @since is only a command at the start of a line. */\nvoid keepsock_peek(void);\n";

#[test]
fn page_of_a_function_has_its_comment() {
    let pages = pages_of(READ).unwrap();
    let names: Vec<_> = pages.keys().map(String::as_str).collect();
    let expected =
        ["man3/keepsock_peek.3", "man3/keepsock_read.3", "man7/keepsock-read.7", "man7/keepsock.7"];
    assert_eq!(names, expected);
    let page = &pages["man3/keepsock_read.3"];
    for part in [
        ".SH NAME\nkeepsock_read \\- reads a byte\n",
        ".SH DESCRIPTION\n\\fBkeepsock_read\\fP() reads a byte.\n.PP\nIt waits.\n\\fBkeepsock_peek\\fP(3) does not.\n",
        ".TP\n\\fIat\\fP\nThe place, from 0.\n.TP\n\\fIerror\\fP\nReceives",
        ".SH ERRORS\n.TP\n\\fBKEEPSOCK_ERR_CLOSED\\fP\nThe socket is closed.\n",
        "Available since keepsock 0.1.\n",
        ".SH SEE ALSO\n.BR keepsock_peek (3),\n.BR keepsock (7),\n.BR keepsock\\-read (7)\n",
    ] {
        assert!(page.contains(part), "{part}\n\nis not in\n\n{page}");
    }
}

#[test]
fn undocumented_declaration_has_no_page() {
    let fault = |from: &str, to: &str| {
        assert!(READ.contains(from), "{from}");
        let faults = pages_of(&READ.replace(from, to)).unwrap_err();
        faults.lines().next().unwrap_or_default().to_owned()
    };
    let none =
        fault("/** Looks at a byte. @since is only a command at the start of a line. */\n", "");
    assert_eq!(none, "keepsock_peek: its comment does not begin with a sentence");
    let parameter = fault("int at,", "int at, int to,");
    assert_eq!(parameter, "keepsock_read: the parameter to has no @param");
    let result = fault("@return", "@note");
    assert!(result.starts_with("keepsock_read: @return is missing"), "{result}");
    assert_eq!(
        fault("It waits.", "@bug It waits."),
        "keepsock_read: unknown command: @bug It waits. keepsock_peek() does not."
    );
}

#[test]
fn check_reports_stale_missing_and_left_over_pages() {
    let page = |name: &str, text: &str| (format!("man3/{name}.3"), text.to_owned());
    let pages = [page("a", "1\n2\n"), page("b", "1\n"), page("c", "1\n")].into();
    let committed = [page("a", "1\n3\n"), page("b", "1\n"), page("d", "1\n")].into();
    let expected = [
        "docs/man/man3/a.3 is out of date at line 2",
        "docs/man/man3/c.3 is missing",
        "docs/man/man3/d.3 describes nothing that a header declares",
    ];
    assert_eq!(faults(&pages, &committed), expected);
}
