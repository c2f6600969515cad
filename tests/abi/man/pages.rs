//! The pages: one of section 3 for each declaration, one of section 7 for each header.

use std::collections::{BTreeMap, BTreeSet};

use regex::Regex;

use super::text::{Block, Page, blocks, code, first_sentence, reference};
use crate::support::header::{self, Item, What, last_name, member_name};

/// The date in the footer of each page: the day on which the version was released. A page without a
/// date is a warning of mandoc(1).
const DATE: &str = "2026-12-01";

/// The columns of a declaration: a terminal has 80, and the text of a page is indented by 7.
const COLUMNS: usize = 72;

/// A header as its comments describe it.
struct Topic {
    /// `client` for keepsock/client.h.
    name: String,
    brief: String,
    introduction: String,
    since: String,
    sections: Vec<Section>,
}

struct Section {
    title: String,
    text: String,
    /// The declarations as they are in the header.
    source: String,
    items: Vec<Item>,
}

/// The comment of a declaration.
#[derive(Default)]
struct Comment {
    text: String,
    parameters: Vec<(String, String)>,
    returned: String,
    notes: Vec<String>,
    since: Option<String>,
}

/// All pages: the path below docs/man, and the text. The headers are their paths and their texts.
pub fn pages(headers: &[(String, String)]) -> Result<BTreeMap<String, String>, String> {
    let mut topics = Vec::new();
    let mut first_page = None;
    for (path, text) in headers {
        match path.strip_prefix("keepsock/").and_then(|name| name.strip_suffix(".h")) {
            Some(name) => topics.push(Topic::parse(name, text)?),
            None => first_page = Some(comment_of_file(text)),
        }
    }
    let manual = Manual::new(topics)?;
    let mut pages = BTreeMap::new();
    let mut faults = Vec::new();
    let mut add = |name: &str, section: u8, page: Result<String, String>| match page {
        Ok(text) => {
            pages.insert(format!("man{section}/{name}.{section}"), text);
        }
        Err(fault) => faults.push(format!("{name}: {fault}")),
    };
    for topic in &manual.topics {
        for section in &topic.sections {
            for item in &section.items {
                add(item.name(), 3, manual.page_of_item(topic, section, item));
            }
        }
        add(&page_of(topic), 7, manual.page_of_topic(topic));
    }
    let comment = first_page.ok_or("there is no keepsock.h")?;
    add("keepsock", 7, manual.page_of_library(&comment));
    if faults.is_empty() { Ok(pages) } else { Err(faults.join("\n")) }
}

/// The first comment of a header, with its indentation.
fn comment_of_file(text: &str) -> String {
    let comment = text.split_once("/**").and_then(|(_, rest)| rest.split_once("*/"));
    header::indented(comment.map_or("", |(comment, _)| comment))
}

impl Topic {
    fn parse(name: &str, text: &str) -> Result<Self, String> {
        let mut brief = String::new();
        let mut since = String::new();
        let mut introduction = Vec::new();
        let mut is_contents = false;
        let comment = comment_of_file(text);
        for line in comment.lines() {
            // The page lists the functions of each section itself.
            is_contents = line == "Contents" || is_contents && !line.is_empty();
            if let Some(text) = line.strip_prefix("@brief ") {
                brief = text.to_owned();
            } else if let Some(text) = line.strip_prefix("@since ") {
                since = text.split(',').next().unwrap_or(text).to_owned();
            } else if !line.starts_with("@file ") && !is_contents {
                introduction.push(line);
            }
        }
        let mut sections = Vec::new();
        let mut parts = text.split("\n/*\n * ---- ");
        let before = header::items(parts.next().unwrap_or(""));
        if let Some(item) = before.first() {
            return Err(format!("{name}.h: {} precedes the first section", item.name()));
        }
        for part in parts {
            let (comment, source) = part.split_once("*/").unwrap_or((part, ""));
            let (title, text) = comment.split_once('\n').unwrap_or((comment, ""));
            let title = title.trim_end_matches('-').trim();
            let title = title.split_once(". ").map_or(title, |(_, title)| title);
            sections.push(Section {
                title: title.to_owned(),
                text: header::indented(text),
                source: source.to_owned(),
                items: header::items(source),
            });
        }
        let introduction = introduction.join("\n");
        Ok(Self { name: name.to_owned(), brief, introduction, since, sections })
    }
}

fn page_of(topic: &Topic) -> String {
    format!("keepsock-{}", topic.name)
}

impl Comment {
    fn parse(text: &str) -> Self {
        let mut comment = Self::default();
        // The part that the lines continue.
        let mut part = 't';
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("@param ") {
                let (name, text) = rest.split_once(' ').unwrap_or((rest, ""));
                comment.parameters.push((name.to_owned(), text.trim().to_owned()));
                part = 'p';
            } else if let Some(rest) = line.strip_prefix("@return ") {
                rest.clone_into(&mut comment.returned);
                part = 'r';
            } else if let Some(rest) = line.strip_prefix("@note ") {
                comment.notes.push(rest.to_owned());
                part = 'n';
            } else if let Some(rest) = line.strip_prefix("@since ") {
                comment.since = Some(rest.trim_end_matches('.').to_owned());
            } else {
                let to = match part {
                    'p' => comment.parameters.last_mut().map(|(_, text)| text),
                    'r' => Some(&mut comment.returned),
                    'n' => comment.notes.last_mut(),
                    _ => None,
                };
                match to {
                    // Parameters are aligned in columns. The rest is indented by two.
                    Some(text) if part == 'p' => *text += &format!("\n{}", line.trim()),
                    Some(text) => {
                        *text += &format!("\n{}", line.strip_prefix("  ").unwrap_or(line));
                    }
                    None => comment.text += &format!("{line}\n"),
                }
            }
        }
        comment
    }

    /// The purpose: the first sentence, without its period.
    fn purpose(&self) -> Result<String, String> {
        match blocks(&self.text)?.first() {
            Some(Block::Paragraph(text)) => {
                Ok(lower(&first_sentence(text).trim_end_matches('.').replace('`', "")))
            }
            _ => Err("its comment does not begin with a sentence".to_owned()),
        }
    }
}

/// A text that continues a sentence: `TCP sockets` keeps its capitals.
fn lower(text: &str) -> String {
    let mut chars = text.chars();
    match (chars.next(), text.chars().nth(1)) {
        (Some(first), Some(second)) if !second.is_uppercase() => {
            first.to_lowercase().chain(chars).collect()
        }
        _ => text.to_owned(),
    }
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

struct Manual {
    topics: Vec<Topic>,
    /// The names of the pages of section 3.
    names: BTreeSet<String>,
    /// The types whose comments state which threads may use an object.
    with_threads: BTreeSet<String>,
    /// The enumeration of each enumerator.
    enumerations: BTreeMap<String, String>,
}

impl Manual {
    fn new(topics: Vec<Topic>) -> Result<Self, String> {
        let mut manual = Self {
            topics,
            names: BTreeSet::new(),
            with_threads: BTreeSet::new(),
            enumerations: BTreeMap::new(),
        };
        for item in manual
            .topics
            .iter()
            .flat_map(|topic| &topic.sections)
            .flat_map(|section| &section.items)
        {
            let name = item.name().to_owned();
            if item.comment.lines().any(|line| line.starts_with("Threads: ")) {
                manual.with_threads.insert(name.clone());
            }
            if matches!(item.what(), What::Enum(_)) {
                let members =
                    item.members.iter().map(|m| (member_name(m).to_owned(), name.clone()));
                manual.enumerations.extend(members);
            }
            if !manual.names.insert(name) {
                return Err(format!("{} is declared twice", item.name()));
            }
        }
        Ok(manual)
    }

    /// The head of a page.
    fn head(name: &str, section: u8, purpose: &str) -> String {
        format!(
            ".\\\" Generated from the headers in include/ by: {}\n\
             .\\\" SPDX-License-Identifier: MIT OR Apache-2.0\n\
             .TH {} {section} {DATE} \"keepsock {}\" \"keepsock manual\"\n\
             .\\\" Names are long: a hyphen or wide spaces in a line would spoil them.\n\
             .ad l\n.nh\n\
             .SH NAME\n{} \\- {}\n",
            super::BLESS,
            code(name),
            env!("CARGO_PKG_VERSION"),
            code(name),
            code(purpose),
        )
    }

    fn page_of_item(
        &self,
        topic: &Topic,
        section: &Section,
        item: &Item,
    ) -> Result<String, String> {
        let name = item.name();
        let comment = Comment::parse(&item.indented);
        let head = Self::head(name, 3, &comment.purpose()?);
        let mut page = Page::new(head, name, &self.names);
        let members = item.members.iter().map(|member| member_name(member).to_owned());
        let parameters = item.parameters().into_iter().map(str::to_owned);
        page.set_parameters(members.chain(parameters).collect());

        page.section("SYNOPSIS");
        page.line(".nf\n\\fB#include <keepsock.h>\\fP\n.PP");
        for line in synopsis(item, &section.source) {
            page.line(&line);
        }
        page.line(".fi");
        if item.is_function() {
            page.line(".PP\nLink with \\fI\\-lkeepsock\\fP.");
        }

        let mut examples = Vec::new();
        let mut threads = Vec::new();
        let mut description = Vec::new();
        for block in blocks(&comment.text)? {
            match block {
                Block::Paragraph(text) if text.starts_with("Threads: ") => {
                    threads.push(capital(text.trim_start_matches("Threads: ")));
                }
                Block::Code(lines) if !introduces(description.last()) => examples.push(lines),
                block => description.push(block),
            }
        }
        page.section("DESCRIPTION");
        if let Some(Block::Paragraph(text)) = description.first_mut().filter(|_| item.is_function())
        {
            *text = with_subject(name, text);
        }
        page.blocks(&description);

        if matches!(item.what(), What::Function(_) | What::Callback(_)) {
            self.parameters(&mut page, item, &comment)?;
            Self::result(&mut page, item, &comment)?;
        } else if !item.members.is_empty() {
            let is_enum = matches!(item.what(), What::Enum(_));
            page.section(if is_enum { "VALUES" } else { "MEMBERS" });
            for member in &item.members {
                let font = if is_enum { 'B' } else { 'I' };
                let tag = format!("\\f{font}{}\\fP", code(member_name(member)));
                let comment = Comment::parse(&member.comment);
                let mut text = blocks(&comment.text)?;
                if let Some(version) = comment.since {
                    text.push(Block::Paragraph(format!("Available since keepsock {version}.")));
                }
                page.tagged(&tag, &text)?;
            }
        }

        if !comment.notes.is_empty() {
            page.section("NOTES");
            for note in &comment.notes {
                page.blocks(&blocks(note)?);
            }
        }
        let object = object(item).filter(|object| self.with_threads.contains(*object));
        if !threads.is_empty() || object.is_some() {
            page.section("THREADS");
            for text in threads {
                page.paragraph(&text);
            }
            if let Some(object) = object {
                page.paragraph(&format!(
                    "{object}() states which threads may use the object at the same time."
                ));
            }
        }
        if !examples.is_empty() {
            page.section(if examples.len() > 1 { "EXAMPLES" } else { "EXAMPLE" });
            for lines in examples {
                page.code(&lines);
            }
        }
        page.section("VERSIONS");
        page.paragraph(&format!(
            "Available since keepsock {}.",
            comment.since.as_ref().unwrap_or(&topic.since)
        ));

        // The type of an enumerator that the text names.
        let words = Regex::new(r"KEEPSOCK_\w+").unwrap();
        let enumerations = words
            .find_iter(&item.comment)
            .filter_map(|word| self.enumerations.get(word.as_str()))
            .filter(|name| *name != "keepsock_status" || item.is_function());
        let siblings = section.items.iter().map(|item| item.name().to_owned());
        let others = siblings.chain(enumerations.cloned()).map(|name| (3, name));
        let topic = [(7, "keepsock".to_owned()), (7, page_of(topic))];
        page.named.remove(&(3, "KEEPSOCK_OK".to_owned()));
        page.see_also(others.chain(topic));
        Ok(page.finish())
    }

    /// Every parameter. The comment of a function omits the parameters that keepsock.h describes.
    fn parameters(&self, page: &mut Page, item: &Item, comment: &Comment) -> Result<(), String> {
        let parameters = item.parameters();
        if parameters.is_empty() {
            return Ok(());
        }
        page.section("PARAMETERS");
        for name in parameters {
            let described = comment.parameters.iter().find(|(other, _)| other == name);
            let text = match (described, name, object(item)) {
                (Some((_, text)), ..) => text.clone(),
                (None, "error", _) => {
                    "Receives a keepsock_error() if the call fails. NULL if the status is enough. \
                     See keepsock(7)."
                        .to_owned()
                }
                (None, "size", _) => "sizeof *out. See keepsock(7).".to_owned(),
                (None, _, Some(object)) if item.name().ends_with("_free") => {
                    format!("The {object}() to free. NULL is ignored.")
                }
                (None, _, Some(object)) => format!("The {object}()."),
                (None, ..) => return Err(format!("the parameter {name} has no @param")),
            };
            page.tagged(&format!("\\fI{}\\fP", code(name)), &blocks(&text)?)?;
        }
        Ok(())
    }

    fn result(page: &mut Page, item: &Item, comment: &Comment) -> Result<(), String> {
        if item.returns_something() == comment.returned.is_empty() {
            return Err("@return is missing, or the function returns nothing".to_owned());
        }
        if comment.returned.is_empty() {
            return Ok(());
        }
        page.section("RETURN VALUE");
        let returned = blocks(&comment.returned)?;
        let is_status = |block: &Block| matches!(block, Block::Entry(_, text) if text.starts_with("KEEPSOCK_ERR_"));
        let (statuses, mut other): (Vec<_>, Vec<_>) = returned.into_iter().partition(is_status);
        if let Some(Block::Paragraph(text)) = other.last_mut().filter(|_| !statuses.is_empty()) {
            *text = match text.strip_suffix("otherwise") {
                Some(start) => format!("{start}otherwise one of the statuses under ERRORS."),
                None => format!("{text} The statuses are listed under ERRORS."),
            };
        }
        page.blocks(&other);
        if statuses.is_empty() {
            return Ok(());
        }
        page.section("ERRORS");
        for status in &statuses {
            let Block::Entry(_, text) = status else { continue };
            let (names, cause) =
                text.split_once(": ").ok_or(format!("a status needs a cause: {text}"))?;
            let names = names.split(", ").map(|name| format!("\\fB{}\\fP", code(name)));
            let cause = Block::Paragraph(format!("{}.", capital(cause)));
            page.tagged(&names.collect::<Vec<_>>().join(", "), &[cause])?;
        }
        if item.is_function() {
            page.paragraph(
                "Every function can also return KEEPSOCK_ERR_PANIC, and KEEPSOCK_ERR_WRONG_STATE \
                 for an object that was freed: see keepsock(7).",
            );
        }
        Ok(())
    }

    fn page_of_topic(&self, topic: &Topic) -> Result<String, String> {
        let name = page_of(topic);
        let head = Self::head(&name, 7, &lower(topic.brief.trim_end_matches('.')));
        let mut page = Page::new(head, &name, &self.names);
        page.section("SYNOPSIS");
        page.line(&format!(".nf\n\\fB#include <keepsock/{}.h>\\fP\n.fi", topic.name));
        page.section("DESCRIPTION");
        page.paragraph(&format!(
            "This page lists the declarations of the header {}.h. keepsock.h includes it.",
            topic.name
        ));
        page.blocks(&blocks(&topic.introduction)?);
        page.section("\"FUNCTIONS AND TYPES\"");
        for section in &topic.sections {
            page.subsection(&section.title);
            page.blocks(&blocks(&section.text)?);
            for item in &section.items {
                let purpose = Comment::parse(&item.indented).purpose()?;
                let tag = reference(item.name(), 3);
                page.tagged(&tag, &[Block::Paragraph(format!("{}.", capital(&purpose)))])?;
            }
        }
        page.section("VERSIONS");
        page.paragraph(&format!("Available since keepsock {}.", topic.since));
        // The text names the functions already.
        page.named.retain(|(section, _)| *section != 3);
        let others = self.topics.iter().map(|topic| (7, page_of(topic)));
        page.see_also(others.chain([(7, "keepsock".to_owned())]));
        Ok(page.finish())
    }

    /// keepsock(7): the first page of the library.
    fn page_of_library(&self, comment: &str) -> Result<String, String> {
        let (before, rest) = split_at_line(comment, "Conventions")?;
        let (conventions, tasks) = split_at_line(rest, "Index by task")?;
        let mut brief = "";
        let mut introduction = Vec::new();
        for line in before.lines() {
            if let Some(text) = line.strip_prefix("@brief ") {
                brief = text;
            } else if !line.starts_with("@file ") && !line.starts_with("SPDX-") {
                introduction.push(line);
            }
        }
        let head = Self::head("keepsock", 7, &lower(brief.trim_end_matches('.')));
        let mut page = Page::new(head, "keepsock", &self.names);
        page.section("SYNOPSIS");
        page.line(".nf\n\\fB#include <keepsock.h>\\fP\n.fi");
        page.section("DESCRIPTION");
        let mut introduction = blocks(&introduction.join("\n"))?;
        for block in &mut introduction {
            if let Block::Table(rows) = block {
                for (tag, _) in rows {
                    if let Some(name) = tag.strip_suffix(".h") {
                        *tag = format!("keepsock-{name}(7)");
                    }
                }
            }
        }
        page.blocks(&introduction);
        page.section("CONVENTIONS");
        page.blocks(&blocks(conventions)?);
        page.section("\"INDEX BY TASK\"");
        for line in joined(tasks) {
            let text = line.trim_start();
            match line.len() - text.len() {
                _ if text.is_empty() => {}
                0 => page.subsection(text),
                2 => {
                    page.line(".TP");
                    page.line(&super::text::prose(text));
                }
                _ => {
                    // `client.h 1: keepsock_client_read, keepsock_client_peek`
                    let names = text.split_once(": ").map_or(text, |(_, names)| names);
                    let names = names.split(", ").map(|name| reference(name, 3));
                    page.line(&names.collect::<Vec<_>>().join(",\n"));
                }
            }
        }
        page.named.retain(|(section, _)| *section != 3);
        page.see_also(self.topics.iter().map(|topic| (7, page_of(topic))));
        Ok(page.finish())
    }
}

/// The text before and after the line that begins with `start`.
fn split_at_line<'t>(text: &'t str, start: &str) -> Result<(&'t str, &'t str), String> {
    let found = text.split_once(&format!("\n{start}"));
    let (before, after) = found.ok_or(format!("keepsock.h has no line {start:?}"))?;
    Ok((before, after.split_once('\n').map_or("", |(_, after)| after)))
}

/// The lines of the index. A deeper line continues the list of names before it.
fn joined(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for line in text.lines() {
        let is_names = line.starts_with("    ");
        let is_first =
            line.trim_start().split_once(": ").is_some_and(|(place, _)| place.contains(".h "));
        match lines.last_mut().filter(|last| is_names && last.starts_with("    ")) {
            Some(last) if is_first => {
                let names = line.split_once(": ").map_or("", |(_, names)| names);
                *last += &format!(", {names}");
            }
            Some(last) => *last += &format!(" {}", line.trim()),
            None => lines.push(line.to_owned()),
        }
    }
    lines
}

/// Whether a paragraph introduces the code after it: `For example:`.
fn introduces(block: Option<&Block>) -> bool {
    matches!(block, Some(Block::Paragraph(text)) if text.ends_with(':'))
}

/// `Reads bytes.` becomes `keepsock_client_read() reads bytes.`
fn with_subject(name: &str, text: &str) -> String {
    let word = text.split([' ', ',']).next().unwrap_or("");
    let is_verb = word.len() > 2
        && word.ends_with('s')
        && word.starts_with(|c: char| c.is_ascii_uppercase())
        && word.chars().skip(1).all(|c| c.is_ascii_lowercase());
    if is_verb { format!("{name}() {}", lower(text)) } else { text.to_owned() }
}

/// The type of the object that a function works on.
fn object(item: &Item) -> Option<&str> {
    let first = item.text.split(['(', ',']).nth(1).filter(|_| item.is_function())?;
    let words = first.trim_start_matches("const ");
    let name = words.split([' ', '*']).next()?;
    let is_object = name.starts_with("keepsock_") && !first.contains("**");
    is_object.then_some(name)
}

/// The declaration, in bold, with parameters and members in italics.
fn synopsis(item: &Item, source: &str) -> Vec<String> {
    let bold = |text: &str| format!("\\fB{}\\fP", code(text));
    match item.what() {
        What::Function(_) => {
            let (head, list) = item.text.split_once('(').unwrap_or((&item.text, ""));
            prototype(&format!("{head}("), list.trim_end_matches(')'), ");")
        }
        What::Callback(_) => {
            let (head, list) = item.text.split_once(")(").unwrap_or((&item.text, ""));
            prototype(&format!("{head})("), list.trim_end_matches(')'), ");")
        }
        What::Enum(name) => {
            let mut lines = vec![bold(&format!("typedef int32_t {name};")), bold("enum {")];
            let last = item.members.len();
            lines.extend(item.members.iter().enumerate().map(|(at, member)| {
                let comma = if at + 1 < last { "," } else { "" };
                format!("    {}", bold(&format!("{}{comma}", member.text)))
            }));
            lines.push(bold("};"));
            lines
        }
        What::Struct(name) => {
            let mut lines = vec![bold("typedef struct {")];
            for member in &item.members {
                match member.text.split_once(")(") {
                    Some((head, list)) => {
                        let list = list.trim_end_matches(')');
                        lines.extend(prototype(&format!("    {head})("), list, ");"));
                    }
                    None => lines.push(format!("    {}", declared(&member.text, ";"))),
                }
            }
            lines.push(bold(&format!("}} {name};")));
            lines
        }
        What::Macro(_) => vec![bold(&item.text)],
        What::Opaque(_) => vec![bold(&format!("{};", item.text))],
        What::Typedef(name) => {
            // The type of each platform.
            let of_platform = source
                .split("#if ")
                .skip(1)
                .filter_map(|part| part.split_once("#endif"))
                .find(|(part, _)| part.contains(&format!(" {name};")));
            match of_platform {
                Some((part, _)) => format!("#if {part}#endif").lines().map(bold).collect(),
                None => vec![bold(&format!("{};", item.text))],
            }
        }
    }
}

/// `size_t len`: the type in bold, the name in italics.
fn declared(text: &str, end: &str) -> String {
    let name = last_name(text);
    let at = text.rfind(name).filter(|at| *at > 0 && !name.is_empty());
    match at {
        Some(at) => {
            let (before, after) = (&text[..at], &text[at + name.len()..]);
            let after = format!("{after}{end}");
            format!("\\fB{}\\fP\\fI{}\\fP\\fB{}\\fP", code(before), code(name), code(&after))
        }
        None => format!("\\fB{}\\fP", code(&format!("{text}{end}"))),
    }
}

/// A declaration with as many parameters on a line as fit.
fn prototype(head: &str, list: &str, end: &str) -> Vec<String> {
    let parameters: Vec<&str> = list.split(',').map(str::trim).collect();
    let longest = parameters.iter().map(|text| text.len() + 2).max().unwrap_or(0);
    // Below the parenthesis, if the longest parameter fits there.
    let indent = head.len() - head.trim_start().len();
    let column = if head.len() + longest <= COLUMNS { head.len() } else { indent + 8 };
    let spaces = " ".repeat(indent);
    let mut lines = vec![format!("{spaces}\\fB{}\\fP", code(head.trim_start()))];
    let mut length = head.len();
    for (number, parameter) in parameters.iter().enumerate() {
        let end = if number + 1 == parameters.len() { end } else { "," };
        let is_alone = number == 0 && column == head.len();
        if length + parameter.len() + end.len() + 1 > COLUMNS && !is_alone {
            lines.push(" ".repeat(column));
            length = column;
        } else if number > 0 {
            *lines.last_mut().unwrap() += " ";
            length += 1;
        }
        *lines.last_mut().unwrap() += &declared(parameter, end);
        length += parameter.len() + end.len();
    }
    lines
}
