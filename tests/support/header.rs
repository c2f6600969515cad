//! Reads the headers in include/: the declarations and their comments.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// A declaration of the header.
#[derive(Clone, Debug, Default)]
pub struct Item {
    /// The documentation without the stars and the indentation, or an empty text.
    pub comment: String,
    /// The documentation with the indentation of its lines.
    pub indented: String,
    /// The declaration without comments, on one line. For a structure or an enumeration, without
    /// the text in braces.
    pub text: String,
    /// Members of a structure, enumerators of an enumeration.
    pub members: Vec<Item>,
}

#[derive(Debug, PartialEq, Eq)]
pub enum What<'a> {
    Macro(&'a str),
    Enum(&'a str),
    Struct(&'a str),
    Opaque(&'a str),
    Typedef(&'a str),
    /// A function type.
    Callback(&'a str),
    Function(&'a str),
}

/// The path of each header below include/: keepsock.h, then the headers that it includes.
pub fn paths() -> Vec<String> {
    let text = read("keepsock.h");
    let included = text.lines().filter_map(|line| line.strip_prefix("#include \""));
    let included = included.map(|rest| rest.trim_end_matches('"').to_owned());
    ["keepsock.h".to_owned()].into_iter().chain(included).collect()
}

/// The text of one header.
pub fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("include").join(path);
    std::fs::read_to_string(path).unwrap()
}

/// All headers, one after the other.
pub fn text() -> String {
    paths().iter().map(|path| read(path)).collect()
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// Returns the name at the end of a declaration: `char address[128]`.
pub fn last_name(text: &str) -> &str {
    let text = text.split('[').next().unwrap_or(text).trim_end();
    let start = text.rfind(|c| !is_name(c)).map_or(0, |i| i + 1);
    &text[start..]
}

impl Item {
    fn set_comment(&mut self, indented: String) {
        self.comment = indented.lines().map(str::trim).collect::<Vec<_>>().join("\n");
        self.indented = indented;
    }

    pub fn what(&self) -> What<'_> {
        let text = self.text.as_str();
        let mut words = text.split_whitespace();
        match (words.next().unwrap_or(""), words.next().unwrap_or("")) {
            ("#define", name) => What::Macro(name),
            ("enum", name) => What::Enum(name),
            ("typedef", "struct") if self.members.is_empty() => What::Opaque(last_name(text)),
            ("typedef", "struct") => What::Struct(last_name(text)),
            ("typedef", _) => match text.split_once("(*") {
                Some((_, rest)) => What::Callback(rest.split(')').next().unwrap_or("")),
                None => What::Typedef(last_name(text)),
            },
            _ => What::Function(last_name(text.split('(').next().unwrap_or(""))),
        }
    }

    pub fn name(&self) -> &str {
        match self.what() {
            What::Macro(n)
            | What::Enum(n)
            | What::Struct(n)
            | What::Opaque(n)
            | What::Typedef(n)
            | What::Callback(n)
            | What::Function(n) => n,
        }
    }

    fn is_enum_type(&self) -> bool {
        self.text.starts_with("typedef int32_t ")
    }

    pub fn is_function(&self) -> bool {
        matches!(self.what(), What::Function(_))
    }

    /// The parameter names of a function or a function type.
    pub fn parameters(&self) -> Vec<&str> {
        let Some((_, list)) = self.text.rsplit_once('(') else {
            return Vec::new();
        };
        let list = list.trim_end_matches(')');
        list.split(',').map(last_name).filter(|name| *name != "void").collect()
    }

    pub fn returns_something(&self) -> bool {
        let text = self.text.trim_start_matches("typedef ");
        !text.starts_with("void ") || text.starts_with("void *")
    }
}

/// `KEEPSOCK_ERR_OS = -99`, `char stage[16]` and `void (*open)(void *user)`.
pub fn member_name(member: &Item) -> &str {
    if let Some((name, _)) = member.text.split_once("(*").and_then(|(_, s)| s.split_once(')')) {
        return name;
    }
    match member.text.split_once('=') {
        Some((name, _)) => name.trim(),
        None => last_name(&member.text),
    }
}

/// The statuses that each function's documentation lists under @return.
pub fn statuses(items: &[Item]) -> BTreeMap<String, BTreeSet<i32>> {
    let numbers = numbers(items);
    let functions = items.iter().filter(|item| item.is_function());
    let lists = functions.map(|item| {
        let entries = entries(&item.comment);
        let names = entries.iter().flat_map(|(names, _)| names.split(", "));
        let statuses = names.filter_map(|name| numbers.get(name).copied());
        (item.name().to_owned(), statuses.collect())
    });
    lists.collect()
}

/// The number of each status, by its name.
fn numbers(items: &[Item]) -> BTreeMap<&str, i32> {
    let is_status = |item: &&Item| item.what() == What::Enum("keepsock_status");
    let members = items.iter().find(is_status).map_or(&[][..], |item| &item.members);
    let pairs = members.iter().filter_map(|member| {
        let (name, number) = member.text.split_once(" = ")?;
        Some((name, number.parse().ok()?))
    });
    pairs.collect()
}

/// The text after @return.
pub fn returned(comment: &str) -> &str {
    let text = comment.split_once("@return").map_or("", |(_, text)| text);
    text.split("\n@").next().unwrap_or("").trim()
}

/// The entries of the list after @return: the names of statuses, and their cause.
pub fn entries(comment: &str) -> Vec<(&str, &str)> {
    let entries = returned(comment).split("\n- ").skip(1);
    entries.filter_map(|entry| entry.split_once(": ")).collect()
}

/// Returns all declarations of the header in order.
pub fn items(text: &str) -> Vec<Item> {
    let mut reader = Reader { rest: text };
    reader.read('\0')
}

struct Reader<'a> {
    rest: &'a str,
}

impl<'a> Reader<'a> {
    fn skip_past(&mut self, mark: &str) -> &'a str {
        let (before, after) = self.rest.split_once(mark).unwrap_or((self.rest, ""));
        self.rest = after;
        before
    }

    /// Reads up to the brace that closes the current block. Members end with `;` or `,`.
    fn read(&mut self, end: char) -> Vec<Item> {
        let mut items = Vec::new();
        let mut comment = String::new();
        let mut item = Item::default();
        loop {
            let Some(next) = self.rest.chars().next() else {
                assert_eq!(end, '\0', "the header ends inside braces");
                return items;
            };
            if let Some(rest) = self.rest.strip_prefix("/**<") {
                self.rest = rest;
                let comment = indented(self.skip_past("*/"));
                // The comment describes the value or the member before it.
                let before = items.last_mut().filter(|_| item.text.is_empty());
                before.unwrap_or(&mut item).set_comment(comment);
                continue;
            }
            if let Some(rest) = self.rest.strip_prefix("/*") {
                self.rest = rest;
                let text = indented(self.skip_past("*/"));
                // The comment of a section belongs to no declaration.
                if rest.starts_with('*') {
                    comment = text;
                }
                continue;
            }
            if self.rest.starts_with("//") {
                self.skip_past("\n");
                continue;
            }
            if next == '#' {
                let line = self.skip_past("\n").split("//").next().unwrap_or("").trim_end();
                // A definition with a value. The include guard has none.
                if line.starts_with("#define ") && line.split_whitespace().count() > 2 {
                    let mut item = Item { text: line.to_owned(), ..Item::default() };
                    item.set_comment(std::mem::take(&mut comment));
                    items.push(item);
                }
                // The type on another platform.
                if line == "#else" {
                    self.skip_past("#endif");
                }
                continue;
            }
            self.rest = &self.rest[next.len_utf8()..];
            match next {
                '{' if item.text.starts_with("extern") => item = Item::default(),
                '{' => item.members = self.read('}'),
                '}' if end != '}' => {} // Closes the block of `extern "C"`.
                // A comma between a callback's parameters ends no member.
                ';' | ',' | '}' if next != ',' || end == '}' && is_closed(&item.text) => {
                    if !item.text.trim().is_empty() {
                        item.text = item.text.split_whitespace().collect::<Vec<_>>().join(" ");
                        // The typedef before an enumeration has its name and its comment.
                        if item.text == "enum" && items.last().is_some_and(Item::is_enum_type) {
                            let name = items.pop().unwrap_or_default();
                            item.text = format!("enum {}", last_name(&name.text));
                            item.set_comment(name.indented);
                        }
                        items.push(std::mem::take(&mut item));
                    }
                    item = Item::default();
                    if next == '}' {
                        return items;
                    }
                }
                c => {
                    if item.text.is_empty() && !c.is_whitespace() {
                        item.set_comment(std::mem::take(&mut comment));
                    }
                    if !item.text.is_empty() || !c.is_whitespace() {
                        item.text.push(c);
                    }
                }
            }
        }
    }
}

fn is_closed(text: &str) -> bool {
    text.matches('(').count() == text.matches(')').count()
}

/// A comment without its stars. The lines keep their indentation.
pub fn indented(comment: &str) -> String {
    let lines = comment.lines().map(|line| {
        let line = line.trim_start().trim_start_matches('*');
        line.strip_prefix(' ').unwrap_or(line).trim_end()
    });
    lines.collect::<Vec<_>>().join("\n").trim().to_owned()
}
