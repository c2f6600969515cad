//! Comments of the headers as man(7): paragraphs, lists, tables and code.
//!
//! The pages use man(7), not mdoc(7): groff, mandoc and the man programs of older systems read it, and
//! converters to other formats know it. The semantic macros of mdoc(7) would repeat what the headers
//! already state.

use std::collections::BTreeSet;

use regex::Regex;

/// The most characters of a line of text in the source of a page.
const WIDTH: usize = 90;

/// A part of a comment.
#[derive(Debug, PartialEq, Eq)]
pub enum Block {
    Paragraph(String),
    /// An entry of a list: `- text`, or `(1) text` for a note below a table.
    Entry(String, String),
    /// The rows of a table: the first column, and the rest.
    Table(Vec<(String, String)>),
    Code(Vec<String>),
}

/// Splits a text with its indentation into blocks.
pub fn blocks(text: &str) -> Result<Vec<Block>, String> {
    let note = Regex::new(r"^(\(\d\)) (.*)$").unwrap();
    let mut blocks = Vec::new();
    let mut lines = text.lines().peekable();
    // Whether the next line continues the last block.
    let mut is_open = false;
    let mut entry_indent = 0;
    while let Some(line) = lines.next() {
        let start = line.trim_start();
        let indent = line.len() - start.len();
        if start.is_empty() {
            is_open = false;
        } else if start == "@code" {
            let code = lines.by_ref().take_while(|line| line.trim() != "@endcode");
            blocks.push(Block::Code(code.map(str::to_owned).collect()));
            is_open = false;
        } else if start.starts_with('@') {
            return Err(format!("unknown command: {start}"));
        } else if let Some(text) = start.strip_prefix("- ") {
            blocks.push(Block::Entry("\u{2022}".to_owned(), text.to_owned()));
            is_open = true;
            entry_indent = indent;
        } else if let Some(found) = note.captures(line) {
            blocks.push(Block::Entry(found[1].to_owned(), found[2].to_owned()));
            is_open = true;
            entry_indent = 0;
        } else {
            match blocks.last_mut().filter(|_| is_open) {
                Some(Block::Paragraph(text)) if indent < 2 => *text += &format!(" {start}"),
                Some(Block::Entry(_, text)) if indent > entry_indent => {
                    *text += &format!(" {start}")
                }
                _ if indent >= 2 => {
                    let mut rows = vec![line];
                    while let Some(next) = lines.next_if(|line| line.starts_with("  ")) {
                        rows.push(next);
                    }
                    blocks.push(Block::Table(table(&rows)?));
                    is_open = false;
                }
                _ => {
                    blocks.push(Block::Paragraph(start.to_owned()));
                    is_open = true;
                }
            }
        }
    }
    Ok(blocks)
}

/// The rows of a table. Two spaces separate the columns.
fn table(lines: &[&str]) -> Result<Vec<(String, String)>, String> {
    if lines.get(1).is_some_and(|line| line.trim().starts_with("---")) {
        return wide_table(lines);
    }
    let row = Regex::new(r"^  (\S.*?)  +(\S.*)$").unwrap();
    let mut rows: Vec<(String, String)> = Vec::new();
    for line in lines {
        if let Some(found) = row.captures(line) {
            rows.push((found[1].to_owned(), found[2].to_owned()));
        } else if let Some((_, text)) = rows.last_mut().filter(|_| line.starts_with("    ")) {
            *text += &format!(" {}", line.trim());
        } else {
            return Err(format!("a row of a table has two columns: {line:?}"));
        }
    }
    Ok(rows)
}

/// A table with a title for each column, and a line of dashes below the titles. An empty cell continues
/// the row before it. Each further column becomes `title: text`.
fn wide_table(lines: &[&str]) -> Result<Vec<(String, String)>, String> {
    let dashes = Regex::new("-+").unwrap();
    let starts: Vec<usize> = dashes.find_iter(lines[1]).map(|found| found.start()).collect();
    let cells = |line: &str| -> Vec<String> {
        let ends = starts.iter().skip(1).copied().chain([usize::MAX]);
        let cells = starts.iter().zip(ends);
        cells
            .map(|(from, to)| {
                line.get(*from..to.min(line.len())).unwrap_or_default().trim().to_owned()
            })
            .collect()
    };
    let titles = cells(lines[0]);
    let mut rows: Vec<Vec<String>> = Vec::new();
    for line in &lines[2..] {
        let new = cells(line);
        if !new.iter().any(String::is_empty) {
            rows.push(new);
            continue;
        }
        let last = rows.last_mut().ok_or(format!("a table begins with an empty cell: {line}"))?;
        for (cell, text) in last.iter_mut().zip(new).filter(|(_, text)| !text.is_empty()) {
            *cell += &format!(" {text}");
        }
    }
    let rows = rows.into_iter().map(|row| {
        let further = titles.iter().zip(&row).skip(1);
        let further: Vec<_> = further.map(|(title, cell)| format!("{title}: {cell}")).collect();
        (row[0].clone(), format!("{}.", further.join("; ")))
    });
    Ok(rows.collect())
}

/// The first sentence of a text.
pub fn first_sentence(text: &str) -> &str {
    text.find(". ").map_or(text, |end| &text[..=end])
}

/// A page as it is written.
pub struct Page<'a> {
    out: String,
    /// The names that have a page of section 3.
    pages: &'a BTreeSet<String>,
    /// The name of this page.
    own: &'a str,
    /// The parameters and members, which are set in italics.
    parameters: Vec<String>,
    /// Whether a paragraph needs no macro, because a heading precedes it.
    is_start: bool,
    /// The pages that the text names: the section and the name.
    pub named: BTreeSet<(u8, String)>,
}

impl<'a> Page<'a> {
    pub fn new(head: String, own: &'a str, pages: &'a BTreeSet<String>) -> Self {
        let (parameters, named) = (Vec::new(), BTreeSet::new());
        Self { out: head, pages, own, parameters, is_start: false, named }
    }

    pub fn set_parameters(&mut self, names: Vec<String>) {
        self.parameters = names;
    }

    pub fn finish(self) -> String {
        self.out
    }

    pub fn line(&mut self, line: &str) {
        self.out += line;
        self.out.push('\n');
        self.is_start = false;
    }

    pub fn section(&mut self, title: &str) {
        self.line(&format!(".SH {title}"));
        self.is_start = true;
    }

    pub fn subsection(&mut self, title: &str) {
        self.line(&format!(".SS {}", prose(title)));
        self.is_start = true;
    }

    fn text(&mut self, text: &str) {
        let text = self.inline(text);
        self.line(&filled(&text));
    }

    pub fn paragraph(&mut self, text: &str) {
        if !self.is_start {
            self.line(".PP");
        }
        self.text(text);
    }

    /// A tag with its text.
    pub fn tagged(&mut self, tag: &str, text: &[Block]) -> Result<(), String> {
        let Some((Block::Paragraph(first), more)) = text.split_first() else {
            return Err(format!("{tag} has no text"));
        };
        self.line(".TP");
        self.line(&guarded(tag));
        self.text(first);
        if !more.is_empty() {
            self.line(".RS");
            self.blocks(more);
            self.line(".RE");
        }
        Ok(())
    }

    pub fn code(&mut self, lines: &[String]) {
        self.line(if self.is_start { ".RS 4" } else { ".PP\n.RS 4" });
        self.line(".EX");
        for line in lines {
            self.line(&guarded(&code(line)));
        }
        // .EE turns hyphenation on again.
        self.line(".EE\n.nh\n.RE");
    }

    pub fn blocks(&mut self, blocks: &[Block]) {
        for block in blocks {
            match block {
                Block::Paragraph(text) => self.paragraph(text),
                Block::Entry(mark, text) => {
                    let mark = if mark == "\u{2022}" { "\\(bu 2" } else { &format!("{mark} 4") };
                    self.line(&format!(".IP {mark}"));
                    self.text(text);
                }
                Block::Table(rows) => {
                    let width = rows.iter().map(|(tag, _)| tag.len() + 2).max().unwrap_or(0);
                    let width = width.min(30);
                    for (number, (tag, text)) in rows.iter().enumerate() {
                        let tag = self.inline(tag);
                        if number == 1 {
                            self.line(".PD 0");
                        }
                        self.line(&format!(".TP {width}"));
                        self.line(&guarded(&tag));
                        self.text(text);
                    }
                    self.line(".PD");
                }
                Block::Code(lines) => self.code(lines),
            }
        }
    }

    /// The pages that the text names, and `more`, without this page.
    pub fn see_also(&mut self, more: impl IntoIterator<Item = (u8, String)>) {
        let mut all = std::mem::take(&mut self.named);
        all.extend(more);
        all.retain(|(_, name)| name != self.own);
        self.section("SEE ALSO");
        let last = all.len();
        for (number, (section, name)) in all.iter().enumerate() {
            let comma = if number + 1 < last { "," } else { "" };
            self.line(&format!(".BR {} ({section}){comma}", code(name)));
        }
    }

    /// A text with its fonts: names in bold, parameters in italics, and references to pages.
    fn inline(&mut self, text: &str) -> String {
        let token = Regex::new(
            r"`([^`]+)`|\b([a-z_][a-z0-9_-]*)\(([1-8])\)|\b((?:keepsock|KEEPSOCK)_\w+)(\(\))?",
        )
        .unwrap();
        let (mut out, mut end) = (String::new(), 0);
        for found in token.captures_iter(text) {
            let whole = found.get(0).unwrap();
            out += &prose(&text[end..whole.start()]);
            end = whole.end();
            if let Some(quoted) = found.get(1) {
                let is_parameter = self.parameters.iter().any(|name| name == quoted.as_str());
                let font = if is_parameter { 'I' } else { 'B' };
                out += &format!("\\f{font}{}\\fP", code(quoted.as_str()));
            } else if let (Some(name), Some(section)) = (found.get(2), found.get(3)) {
                let section: u8 = section.as_str().parse().unwrap_or(3);
                self.named.insert((section, name.as_str().to_owned()));
                out += &reference(name.as_str(), section);
            } else if let Some(name) = found.get(4).map(|name| name.as_str()) {
                let has_page = self.pages.contains(name);
                if has_page {
                    self.named.insert((3, name.to_owned()));
                }
                out += &match found.get(5) {
                    Some(_) if has_page && name != self.own => reference(name, 3),
                    Some(_) => format!("\\fB{}\\fP()", code(name)),
                    None => format!("\\fB{}\\fP", code(name)),
                };
            }
        }
        out + &prose(&text[end..])
    }
}

/// `keepsock_client_read(3)`, with the name in bold.
pub fn reference(name: &str, section: u8) -> String {
    format!("\\fB{}\\fP({section})", code(name))
}

/// Code: every character is the ASCII character, so that a reader can copy it.
pub fn code(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '\\' => out += "\\e",
            '-' => out += "\\-",
            '\'' => out += "\\(aq",
            '`' => out += "\\(ga",
            '^' => out += "\\(ha",
            '~' => out += "\\(ti",
            c if c.is_ascii() => out.push(c),
            c => out += &format!("\\[u{:04X}]", u32::from(c)),
        }
    }
    out
}

/// Prose: a hyphen inside a word and an apostrophe may be typographic.
pub fn prose(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let is_inside = |at: usize| {
        at > 0
            && chars[at - 1].is_alphanumeric()
            && chars.get(at + 1).is_some_and(|c| c.is_alphanumeric())
    };
    let mut out = String::new();
    for (at, c) in chars.iter().enumerate() {
        match c {
            '-' if is_inside(at) => out.push('-'),
            // `peer's` and `peers'`.
            '\'' if is_inside(at) || at > 0 && chars[at - 1] == 's' => out.push('\''),
            c => out += &code(&c.to_string()),
        }
    }
    out
}

/// A line that begins with a period or an apostrophe would be a macro.
fn guarded(line: &str) -> String {
    if line.starts_with(['.', '\'']) { format!("\\&{line}") } else { line.to_owned() }
}

/// Fills lines. A sentence begins a line, because roff puts its space between sentences there.
fn filled(text: &str) -> String {
    let mut lines: Vec<String> = vec![String::new()];
    let mut words = text.split_whitespace().peekable();
    while let Some(word) = words.next() {
        let line = lines.last_mut().unwrap();
        if line.is_empty() {
            *line = word.to_owned();
        } else {
            *line += &format!(" {word}");
        }
        let Some(next) = words.peek() else { break };
        let bare = word.trim_end_matches([')', '"']).trim_end_matches("\\fP");
        let ends = bare.ends_with(['.', '?', '!', ':']);
        let begins = next.trim_start_matches(['(', '"']).starts_with(|c: char| c.is_uppercase())
            || next.starts_with('\\');
        if ends && begins && !bare.ends_with(':') {
            lines.push(String::new());
        } else if line.len() + 1 + next.len() > WIDTH {
            // The end of the line is no end of a sentence.
            if ends {
                *line += "\\&";
            }
            lines.push(String::new());
        }
    }
    lines.iter().map(|line| guarded(line)).collect::<Vec<_>>().join("\n")
}

#[test]
fn comment_becomes_paragraphs_lists_tables_and_code() {
    let text = "One\ntwo.\n\nThree:\n- a\n  b\n- c\nFour.\n\n  read     x, y\n           z\n  write it  y\n@code\n  x();\n@endcode\n(1) Note.";
    let text_of = |text: &str| text.to_owned();
    let entry = |text: &str| Block::Entry("\u{2022}".to_owned(), text.to_owned());
    assert_eq!(
        blocks(text).unwrap(),
        [
            Block::Paragraph(text_of("One two.")),
            Block::Paragraph(text_of("Three:")),
            entry("a b"),
            entry("c"),
            Block::Paragraph(text_of("Four.")),
            Block::Table(vec![
                (text_of("read"), text_of("x, y z")),
                (text_of("write it"), text_of("y"))
            ]),
            Block::Code(vec![text_of("  x();")]),
            Block::Entry(text_of("(1)"), text_of("Note.")),
        ]
    );
    let wide = "  cause    reason  peer\n  -------  ------  ----\n  a        B       c\n  d        E or    f g\n           F       h";
    let rows = [("a", "reason: B; peer: c."), ("d", "reason: E or F; peer: f g h.")];
    let rows = rows.map(|(a, b)| (text_of(a), text_of(b)));
    assert_eq!(blocks(wide).unwrap(), [Block::Table(rows.to_vec())]);
    assert!(blocks("@warning No.").is_err());
    assert!(blocks("  one column").is_err());
}

#[test]
fn text_is_escaped_for_roff() {
    let pages = BTreeSet::from(["keepsock_read".to_owned(), "keepsock_write".to_owned()]);
    let mut page = Page::new(String::new(), "keepsock_read", &pages);
    page.set_parameters(vec!["buf".to_owned()]);
    let mut inline = |text: &str| page.inline(text);
    assert_eq!(inline("2 \u{d7} 3"), "2 \\[u00D7] 3");
    assert_eq!(inline("`buf`, `cap - 1`"), "\\fIbuf\\fP, \\fBcap \\- 1\\fP");
    assert_eq!(
        inline("keepsock_read() keepsock_write() keepsock_gone() KEEPSOCK_OK"),
        "\\fBkeepsock_read\\fP() \\fBkeepsock_write\\fP(3) \\fBkeepsock_gone\\fP() \\fBKEEPSOCK_OK\\fP"
    );
    assert_eq!(
        inline("recv(2): the peer's non-zero -1 'x' \\0"),
        "\\fBrecv\\fP(2): the peer's non-zero \\-1 \\(aqx\\(aq \\e0"
    );
    let named = [(2, "recv"), (3, "keepsock_read"), (3, "keepsock_write")];
    assert_eq!(page.named, named.map(|(section, name)| (section, name.to_owned())).into());
    assert_eq!(filled("One. Two, i.e. two.\n.three"), "One.\nTwo, i.e. two. .three");
    assert_eq!(guarded(".x"), "\\&.x");
}
