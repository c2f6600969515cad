//! Reads include/keepsock.h: what it declares, and the comment of each.

use std::path::Path;

/// Something that the header declares.
#[derive(Debug, Default)]
pub struct Item {
    /// Its documentation, without the stars; empty if it has none.
    pub comment: String,
    /// Its declaration, without comments, on one line; of a structure or an
    /// enumeration without what is in its braces.
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
    /// A type of functions.
    Callback(&'a str),
    Function(&'a str),
}

pub fn text() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("include/keepsock.h");
    std::fs::read_to_string(path).unwrap()
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// The name that a piece of a declaration ends with: `char address[128]`.
pub fn last_name(text: &str) -> &str {
    let text = text.split('[').next().unwrap_or(text).trim_end();
    let start = text.rfind(|c| !is_name(c)).map_or(0, |i| i + 1);
    &text[start..]
}

impl Item {
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

    pub fn is_function(&self) -> bool {
        matches!(self.what(), What::Function(_))
    }

    /// The parameters' names, of a function or a type of functions.
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

/// Everything that the header declares, in its order.
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

    /// Reads up to the brace that ends what was begun; members end with `;` or `,`.
    fn read(&mut self, end: char) -> Vec<Item> {
        let mut items = Vec::new();
        let mut comment = String::new();
        let mut item = Item::default();
        loop {
            let Some(next) = self.rest.chars().next() else {
                assert_eq!(end, '\0', "the header ends inside of braces");
                return items;
            };
            if let Some(rest) = self.rest.strip_prefix("/*") {
                self.rest = rest;
                comment = plain(self.skip_past("*/"));
                continue;
            }
            if self.rest.starts_with("//") {
                self.skip_past("\n");
                continue;
            }
            if next == '#' {
                let line = self.skip_past("\n").split("//").next().unwrap_or("").trim_end();
                // With a value: the other one is the guard against reading it twice.
                if line.starts_with("#define ") && line.split_whitespace().count() > 2 {
                    let comment = std::mem::take(&mut comment);
                    items.push(Item { comment, text: line.to_owned(), members: Vec::new() });
                }
                continue;
            }
            self.rest = &self.rest[next.len_utf8()..];
            match next {
                '{' if item.text.starts_with("extern") => item = Item::default(),
                '{' => item.members = self.read('}'),
                '}' if end != '}' => {} // of extern "C"
                // A comma between a callback's parameters ends nothing.
                ';' | ',' | '}' if next != ',' || end == '}' && is_closed(&item.text) => {
                    if !item.text.trim().is_empty() {
                        item.text = item.text.split_whitespace().collect::<Vec<_>>().join(" ");
                        items.push(std::mem::take(&mut item));
                    }
                    item = Item::default();
                    if next == '}' {
                        return items;
                    }
                }
                c => {
                    if item.text.is_empty() && !c.is_whitespace() {
                        item.comment = std::mem::take(&mut comment);
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

/// A comment without its stars.
fn plain(comment: &str) -> String {
    let lines = comment.lines().map(|line| line.trim_start().trim_start_matches('*').trim());
    lines.collect::<Vec<_>>().join("\n").trim().to_owned()
}
