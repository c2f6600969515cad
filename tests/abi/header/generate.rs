//! Generates the headers: cbindgen reads the declarations and their comments from the sources, and
//! each file in src/ffi/contents arranges a part of them as one header.
//!
//! The format of a file in src/ffi/contents:
//!
//! - The first line is the `@brief` of the header. The text up to the first section is the
//!   introduction.
//! - `@contents`, alone on a line, stands for the numbered list of the sections.
//! - `word -> name`: a row of a table. The generator aligns the rows.
//! - `= Title` starts a section. The text after it is the section's comment.
//! - `- name` is a declaration of the section: a function, a type or a macro.
//!
//! keepsock.txt is for keepsock.h, which has no sections. `@headers` stands for the list of the
//! headers. `? task: name, name` is an entry of the index by task. The generator adds the header and
//! the section of each name.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

/// The headers under include/keepsock, in reading order. A header includes earlier headers only.
pub const TOPICS: [&str; 12] = [
    "basics",
    "options",
    "client",
    "connect",
    "server",
    "conn",
    "serving",
    "datagrams",
    "udp",
    "unix",
    "activation",
    "diagnostics",
];

/// The length of a line.
const WIDTH: usize = 100;

/// The line of each header that its functions do not repeat.
const SINCE: &str = "@since 0.2, unless the comment of a function names a later version.";

/// A declaration that cbindgen found.
struct Declaration {
    /// The lines of its comment.
    comment: Vec<String>,
    code: Code,
}

enum Code {
    /// `#define`, an opaque type, a function type, a function.
    Plain(String),
    /// The values of an enumeration: the comment, and the value without the comma.
    Enum(Vec<(Vec<String>, String)>),
    /// The members of a structure: the comment, and the declaration with the semicolon.
    Struct(Vec<(Vec<String>, String)>),
    /// A type that depends on the platform: the condition, and the declarations for both cases.
    Either { condition: String, then: String, otherwise: String },
}

impl Code {
    fn text(&self) -> String {
        let members = |list: &[(Vec<String>, String)]| {
            list.iter().map(|(_, code)| code.clone()).collect::<Vec<_>>().join("\n")
        };
        match self {
            Code::Plain(code) => code.clone(),
            Code::Enum(list) | Code::Struct(list) => members(list),
            Code::Either { then, otherwise, .. } => format!("{then}\n{otherwise}"),
        }
    }
}

type Declarations = BTreeMap<String, Declaration>;

/// A header as its file in src/ffi/contents describes it.
struct Topic {
    name: &'static str,
    brief: String,
    introduction: Vec<String>,
    sections: Vec<Section>,
}

struct Section {
    title: String,
    text: Vec<String>,
    names: Vec<String>,
}

/// Where a declaration is: the header, and the number of the section.
type Places = BTreeMap<String, (usize, usize)>;

/// All headers: the path below include/, and the text.
pub fn headers(root: &Path) -> Result<Vec<(String, String)>, String> {
    let declarations = declarations(root);
    let mut topics = Vec::new();
    for name in TOPICS {
        topics.push(Topic::parse(name, &contents(root, name))?);
    }
    let places = places(&topics, &declarations)?;
    let mut all = Vec::new();
    for (number, topic) in topics.iter().enumerate() {
        let text = header(topic, number, &topics, &declarations, &places)?;
        all.push((format!("keepsock/{}.h", topic.name), text));
    }
    let text = entrance(&contents(root, "keepsock"), &topics, &declarations, &places)?;
    all.push(("keepsock.h".to_owned(), text));
    Ok(all)
}

fn contents(root: &Path, name: &str) -> String {
    std::fs::read_to_string(root.join(format!("src/ffi/contents/{name}.txt"))).unwrap()
}

// ---- Declarations -----------------------------------------------------------------------------

fn declarations(root: &Path) -> Declarations {
    let config = cbindgen::Config::from_file(root.join("cbindgen.toml")).unwrap();
    let bindings =
        cbindgen::Builder::new().with_crate(root).with_config(config).generate().unwrap();
    let mut out = Vec::new();
    bindings.write(&mut out);
    // cbindgen takes a constant's prefix from the name of its enumeration.
    let text = String::from_utf8(out)
        .unwrap()
        .replace("KEEPSOCK_STATUS_", "KEEPSOCK_ERR_")
        .replace("KEEPSOCK_CLOSE_REASON_", "KEEPSOCK_CLOSE_")
        .replace("KEEPSOCK_FRAMING_KIND_", "KEEPSOCK_FRAMING_");
    // A negative number needs parentheses: cbindgen writes none.
    let negative = regex::Regex::new(r"(?m)^(#define \w+) (-\d+)$").unwrap();
    let text = negative.replace_all(&text, "$1 ($2)");
    parse(&text)
}

/// cbindgen separates declarations by empty lines, and has no empty lines inside.
fn parse(text: &str) -> Declarations {
    let mut all = Declarations::new();
    for block in text.split("\n\n").map(str::trim).filter(|block| !block.is_empty()) {
        let mut lines = block.lines().peekable();
        let condition = lines.next_if(|line| line.starts_with("#if ")).map(str::to_owned);
        let comment = comment(&mut lines);
        let rest: Vec<&str> = lines.collect();
        let code = if rest[0].starts_with("enum ") {
            Code::Enum(members(&rest, ','))
        } else if rest[0] == "typedef struct {" {
            Code::Struct(members(&rest, ';'))
        } else {
            let code = rest.iter().take_while(|line| !line.starts_with("#endif"));
            Code::Plain(code.copied().collect::<Vec<_>>().join("\n"))
        };
        let name = match &code {
            Code::Enum(_) => rest[0].trim_start_matches("enum ").to_owned(),
            Code::Struct(_) => last_name(rest[rest.len() - 1]).to_owned(),
            _ => name_of(&rest.join(" ")).to_owned(),
        };
        match (condition, all.remove(&name)) {
            (
                Some(_),
                Some(Declaration { comment, code: Code::Either { condition, then, .. } }),
            ) => {
                let code = Code::Either { condition, then, otherwise: code.text() };
                all.insert(name, Declaration { comment, code });
            }
            (Some(condition), _) => {
                let code = Code::Either { condition, then: code.text(), otherwise: String::new() };
                all.insert(name, Declaration { comment, code });
            }
            (None, _) => {
                all.insert(name, Declaration { comment, code });
            }
        }
    }
    all
}

/// Reads a comment, if one follows: its lines without the stars.
fn comment<'a>(lines: &mut std::iter::Peekable<impl Iterator<Item = &'a str>>) -> Vec<String> {
    let mut comment = Vec::new();
    if lines.next_if(|line| line.trim() == "/**").is_some() {
        for line in lines.by_ref().map(str::trim).take_while(|line| *line != "*/") {
            let line = line.strip_prefix('*').unwrap_or(line);
            comment.push(line.strip_prefix(' ').unwrap_or(line).trim_end().to_owned());
        }
    }
    for_c(&comment)
}

/// The comment of a type that both APIs have, for C programmers: without Rust examples, and with the
/// C names of linked items.
fn for_c(comment: &[String]) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut is_example = false;
    for line in comment {
        if line.starts_with("```") {
            is_example = !is_example;
        } else if !is_example {
            lines.push(c_names(line));
        }
    }
    trimmed(&lines).to_vec()
}

/// Replaces links to Rust items by the names of the C items.
fn c_names(line: &str) -> String {
    let mut text = String::new();
    let mut rest = line;
    while let Some((before, after)) = rest.split_once("[`") {
        let Some((name, after)) = after.split_once("`]") else { break };
        let target = after.strip_prefix('(').and_then(|after| after.split_once(')'));
        let (path, after) = target.unwrap_or((name, after));
        text += before;
        text += &c_name(path).unwrap_or_else(|| name.to_owned());
        rest = after;
    }
    text + rest
}

fn c_name(path: &str) -> Option<String> {
    let (owner, name) = path.rsplit_once("::")?;
    let owner = owner.rsplit("::").next().unwrap_or(owner);
    let screaming: String = name
        .char_indices()
        .flat_map(|(at, c)| {
            let separator = (c.is_ascii_uppercase() && at > 0).then_some('_');
            separator.into_iter().chain([c.to_ascii_uppercase()])
        })
        .collect();
    match owner {
        "CloseReason" => Some(format!("KEEPSOCK_CLOSE_{screaming}")),
        "ErrorKind" => Some(format!("KEEPSOCK_ERR_{screaming}")),
        "SocketOptions" => Some(format!("keepsock_options_set_{name}()")),
        "ServeOptions" => Some(format!("keepsock_serve_options_set_{name}()")),
        "ClientSocket" => Some(format!("keepsock_client_{name}()")),
        "ServerSocket" => Some(format!("keepsock_server_{name}()")),
        "DatagramSocket" => Some(format!("keepsock_datagram_{name}()")),
        _ => None,
    }
}

/// Returns the items between the braces, each with its comment.
fn members(lines: &[&str], end: char) -> Vec<(Vec<String>, String)> {
    let inside = lines.iter().skip_while(|line| !line.trim_start().ends_with('{')).skip(1);
    let mut inside = inside.copied().take_while(|line| !line.starts_with('}')).peekable();
    let mut members = Vec::new();
    while inside.peek().is_some() {
        let comment = comment(&mut inside);
        let mut code = String::new();
        for line in inside.by_ref() {
            let _ = write!(code, "{}{line}", if code.is_empty() { "" } else { "\n" });
            if line.ends_with(end) {
                break;
            }
        }
        members.push((comment, code.trim().trim_end_matches(',').to_owned()));
    }
    members
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

fn last_name(text: &str) -> &str {
    let text = text.trim_end_matches(|c| !is_name(c));
    &text[text.rfind(|c| !is_name(c)).map_or(0, |at| at + 1)..]
}

fn name_of(code: &str) -> &str {
    if let Some(rest) = code.strip_prefix("#define ") {
        return rest.split(' ').next().unwrap_or("");
    }
    match (code.split_once("(*"), code.split_once('(')) {
        (Some((_, rest)), _) if code.starts_with("typedef") => rest.split(')').next().unwrap_or(""),
        (_, Some((before, _))) => last_name(before),
        _ => last_name(code.split(';').next().unwrap_or("")),
    }
}

/// The names of this library in a piece of text.
fn names(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c| !is_name(c));
    words.filter(|word| word.to_ascii_lowercase().starts_with("keepsock_")).collect()
}

// ---- Contents ---------------------------------------------------------------------------------

impl Topic {
    fn parse(name: &'static str, text: &str) -> Result<Topic, String> {
        let mut lines = text.lines();
        let brief = lines.next().unwrap_or("").to_owned();
        let mut topic = Topic { name, brief, introduction: Vec::new(), sections: Vec::new() };
        for line in lines {
            let section = topic.sections.last_mut();
            match (line.strip_prefix("= "), line.strip_prefix("- keepsock_"), section) {
                (Some(title), _, _) => topic.sections.push(Section {
                    title: title.to_owned(),
                    text: Vec::new(),
                    names: Vec::new(),
                }),
                (_, Some(rest), Some(section)) => section.names.push(format!("keepsock_{rest}")),
                (_, _, Some(section)) => match line.strip_prefix("- KEEPSOCK_") {
                    Some(rest) => section.names.push(format!("KEEPSOCK_{rest}")),
                    None => section.text.push(line.to_owned()),
                },
                (_, _, None) => topic.introduction.push(line.to_owned()),
            }
        }
        for section in &topic.sections {
            if section.names.is_empty() {
                return Err(format!("{name}.txt: section {:?} is empty", section.title));
            }
        }
        Ok(topic)
    }

    fn functions<'a>(&'a self, declarations: &'a Declarations) -> Vec<(&'a str, Vec<&'a str>)> {
        let is_function = |name: &&String| {
            matches!(&declarations[*name].code, Code::Plain(code)
                if code.contains('(') && !code.starts_with("typedef"))
        };
        let sections = self.sections.iter();
        let sections = sections.map(|section| {
            let names = section.names.iter();
            let functions: Vec<&str> =
                names.clone().filter(is_function).map(|n| n.as_str()).collect();
            let all = if functions.is_empty() {
                names.map(|name| name.as_str()).collect()
            } else {
                functions
            };
            (section.title.as_str(), all)
        });
        sections.collect()
    }
}

/// Each declaration is in exactly one section.
fn places(topics: &[Topic], declarations: &Declarations) -> Result<Places, String> {
    let mut places = Places::new();
    let mut faults = Vec::new();
    for (number, topic) in topics.iter().enumerate() {
        for (at, section) in topic.sections.iter().enumerate() {
            let place = format!("{}.txt, {:?}", topic.name, section.title);
            for name in &section.names {
                if !declarations.contains_key(name) {
                    faults.push(format!("{place}: {name} is not declared in src/ffi"));
                }
                if let Some((other, _)) = places.insert(name.clone(), (number, at)) {
                    faults.push(format!("{place}: {name} is also in {}.txt", topics[other].name));
                }
            }
        }
    }
    let missing = declarations.keys().filter(|name| !places.contains_key(*name));
    faults.extend(missing.map(|name| format!("{name} is in no section of src/ffi/contents/*.txt")));
    if faults.is_empty() { Ok(places) } else { Err(faults.join("\n")) }
}

// ---- Text -------------------------------------------------------------------------------------

/// Breaks words into lines of at most `width` characters.
fn wrap<'a>(words: impl IntoIterator<Item = &'a str>, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in words {
        let line = lines.last_mut().unwrap();
        if line.is_empty() {
            line.push_str(word);
        } else if line.chars().count() + 1 + word.chars().count() <= width {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

fn push_comment(out: &mut String, open: &str, lines: &[String], indent: &str) {
    let _ = writeln!(out, "{indent}{open}");
    for line in lines {
        let _ = writeln!(out, "{}", format!("{indent} * {line}").trim_end());
    }
    let _ = writeln!(out, "{indent} */");
}

/// Rows `word -> name` in columns. The rows of one table follow each other.
fn tables(lines: &[String]) -> Vec<String> {
    let mut out = Vec::new();
    let mut rest = lines;
    while let Some(line) = rest.first() {
        let rows: Vec<_> = rest.iter().map_while(|line| line.split_once(" -> ")).collect();
        if rows.is_empty() {
            out.push(line.clone());
            rest = &rest[1..];
            continue;
        }
        let column = rows.iter().map(|(word, _)| word.trim().chars().count()).max().unwrap_or(0);
        for (word, name) in &rows {
            let lines = wrap(name.split_whitespace(), WIDTH - column - 7);
            for (number, line) in lines.iter().enumerate() {
                let word = if number == 0 { word.trim() } else { "" };
                out.push(format!("  {word:column$}  {line}"));
            }
        }
        rest = &rest[rows.len()..];
    }
    out
}

fn trimmed(lines: &[String]) -> &[String] {
    let is_text = |line: &String| !line.trim().is_empty();
    let Some(first) = lines.iter().position(is_text) else { return &[] };
    let last = lines.iter().rposition(is_text).unwrap_or(first);
    &lines[first..=last]
}

fn list_of_contents(topic: &Topic, declarations: &Declarations) -> Vec<String> {
    let mut lines = vec!["Contents".to_owned()];
    for (number, (title, functions)) in topic.functions(declarations).iter().enumerate() {
        let list = format!("{:2}. {title}: {}", number + 1, functions.join(", "));
        for (at, line) in wrap(list.trim_start().split(' '), WIDTH - 8).iter().enumerate() {
            let indent = if at > 0 { 4 } else { usize::from(number < 9) };
            lines.push(format!("{}{line}", " ".repeat(indent)));
        }
    }
    lines
}

/// The comment of a value or member behind it, or above it if one of them is long.
fn push_members(out: &mut String, list: &[(Vec<String>, String)], separator: &str) {
    let column = list.iter().map(|(_, code)| code.chars().count()).max().unwrap_or(0) + 6;
    let column = column + separator.len();
    let width = WIDTH.saturating_sub(column + 8);
    let last = list.len() - 1;
    let code_of = |number: usize| {
        let separator = if number == last && separator == "," { "" } else { separator };
        format!("    {}{separator}", list[number].1)
    };
    let text = |lines: &[String]| -> Vec<String> {
        lines.iter().flat_map(|line| line.split_whitespace()).map(str::to_owned).collect()
    };
    let is_behind = list.iter().all(|(comment, code)| {
        let words = text(comment);
        !code.contains('\n')
            && !comment.iter().any(String::is_empty)
            && width > 30
            && wrap(words.iter().map(String::as_str), width).len() <= 2
    });
    for (number, (comment, _)) in list.iter().enumerate() {
        let (code, words) = (code_of(number), text(comment));
        let words = words.iter().map(String::as_str);
        if is_behind {
            let lines = wrap(words, width);
            for (at, line) in lines.iter().enumerate() {
                let start =
                    if at == 0 { format!("{code:column$}/**< ") } else { " ".repeat(column + 5) };
                let end = if at + 1 == lines.len() { " */" } else { "" };
                let _ = writeln!(out, "{start}{line}{end}");
            }
        } else {
            if comment.iter().any(String::is_empty) {
                push_comment(out, "/**", comment, "    ");
            } else {
                let lines = wrap(words, WIDTH - 11);
                let _ = writeln!(out, "    /** {} */", lines.join("\n        "));
            }
            let _ = writeln!(out, "{code}");
        }
    }
}

/// A declaration with as many parameters on a line as fit. cbindgen writes one on each line.
fn filled(code: &str) -> String {
    let open = if code.starts_with("typedef") { ")(" } else { "(" };
    let Some((head, parameters)) = code.split_once(open).filter(|_| code.contains('\n')) else {
        return code.to_owned();
    };
    let head = format!("{head}{open}");
    if parameters.contains('(') {
        return code.to_owned();
    }
    let parameters: Vec<_> = parameters.lines().map(str::trim).collect();
    let column = head.chars().count();
    let lines = wrap(parameters, WIDTH - column);
    head + &lines.join(&format!("\n{}", " ".repeat(column)))
}

fn push_declaration(out: &mut String, name: &str, declaration: &Declaration) {
    let mut comment = declaration.comment.clone();
    // A description of one line needs no empty line after it.
    if comment.len() > 2 && comment[1].is_empty() && comment[2].starts_with('@') {
        comment.remove(1);
    }
    match (&comment[..], &declaration.code) {
        ([line], _) if line.len() <= WIDTH - 7 => {
            let _ = writeln!(out, "/** {line} */");
        }
        ([], _) => {}
        (lines, _) => push_comment(out, "/**", lines, ""),
    }
    match &declaration.code {
        Code::Plain(code) => {
            let _ = writeln!(out, "{}", filled(code));
        }
        Code::Enum(list) => {
            let _ = writeln!(out, "typedef int32_t {name};\nenum {{");
            push_members(out, list, ",");
            out.push_str("};\n");
        }
        Code::Struct(list) => {
            out.push_str("typedef struct {\n");
            push_members(out, list, "");
            let _ = writeln!(out, "}} {name};");
        }
        Code::Either { condition, then, otherwise } => {
            let _ = writeln!(out, "{condition}\n{then}\n#else\n{otherwise}\n#endif");
        }
    }
}

/// The earlier headers that declare the names that this one uses.
fn includes(
    number: usize,
    topics: &[Topic],
    declarations: &Declarations,
    places: &Places,
) -> Result<BTreeSet<usize>, String> {
    let mut used = BTreeSet::new();
    for name in topics[number].sections.iter().flat_map(|section| &section.names) {
        for other in names(&declarations[name].code.text()) {
            let Some((place, _)) = places.get(other) else { continue };
            if *place > number {
                let (here, there) = (topics[number].name, topics[*place].name);
                return Err(format!(
                    "{name} in {here}.h uses {other} of {there}.h, a later header"
                ));
            }
            if *place < number {
                used.insert(*place);
            }
        }
    }
    Ok(used)
}

fn header(
    topic: &Topic,
    number: usize,
    topics: &[Topic],
    declarations: &Declarations,
    places: &Places,
) -> Result<String, String> {
    let mut introduction = vec![
        format!("@file keepsock/{}.h", topic.name),
        format!("@brief {}", topic.brief),
        String::new(),
    ];
    for line in tables(trimmed(&topic.introduction)) {
        if line == "@contents" {
            introduction.extend(list_of_contents(topic, declarations));
        } else {
            introduction.push(line);
        }
    }
    introduction.push(String::new());
    introduction.push(SINCE.to_owned());
    let mut out = String::new();
    push_comment(&mut out, "/**", &introduction, "");
    let guard = format!("KEEPSOCK_{}_H", topic.name.to_uppercase());
    let _ = writeln!(out, "\n#ifndef {guard}\n#define {guard}\n");
    let used = includes(number, topics, declarations, places)?;
    for other in &used {
        let _ = writeln!(out, "#include \"{}.h\"", topics[*other].name);
    }
    out.push_str(if used.is_empty() { "" } else { "\n" });
    out.push_str("#include <stdbool.h>\n#include <stddef.h>\n#include <stdint.h>\n");
    out.push_str("\n#ifdef __cplusplus\nextern \"C\" {\n#endif\n");
    for (at, section) in topic.sections.iter().enumerate() {
        let title = format!("---- {}. {} ", at + 1, section.title);
        let mut lines = vec![format!("{title:-<width$}", width = WIDTH - 3)];
        let text = tables(trimmed(&section.text));
        if !text.is_empty() {
            lines.push(String::new());
            lines.extend(text);
        }
        out.push('\n');
        push_comment(&mut out, "/*", &lines, "");
        for name in &section.names {
            out.push('\n');
            push_declaration(&mut out, name, &declarations[name]);
        }
    }
    let _ = writeln!(out, "\n#ifdef __cplusplus\n}}\n#endif\n\n#endif /* {guard} */");
    Ok(out)
}

/// keepsock.h: conventions, the index by task, and all headers.
fn entrance(
    text: &str,
    topics: &[Topic],
    declarations: &Declarations,
    places: &Places,
) -> Result<String, String> {
    let mut lines: Vec<String> = vec!["@file keepsock.h".to_owned()];
    for (number, line) in text.lines().enumerate() {
        if number == 0 {
            lines.push(format!("@brief {line}"));
        } else if line == "@headers" {
            let column = TOPICS.iter().map(|name| name.len()).max().unwrap_or(0) + 2;
            for topic in topics {
                let name = format!("{}.h", topic.name);
                lines.push(format!("  {name:column$}  {}", topic.brief));
            }
        } else if let Some(entry) = line.strip_prefix("? ") {
            lines.extend(task(entry, topics, declarations, places)?);
        } else {
            lines.push(line.to_owned());
        }
    }
    let mut out = String::new();
    push_comment(&mut out, "/**", trimmed(&tables(&lines)), "");
    out.push_str("\n#ifndef KEEPSOCK_H\n#define KEEPSOCK_H\n\n");
    for topic in topics {
        let _ = writeln!(out, "#include \"keepsock/{}.h\"", topic.name);
    }
    out.push_str("\n#endif /* KEEPSOCK_H */\n");
    Ok(out)
}

/// An entry of the index by task. Names that are in the same section share a line.
fn task(
    entry: &str,
    topics: &[Topic],
    declarations: &Declarations,
    places: &Places,
) -> Result<Vec<String>, String> {
    let (title, list) = entry.rsplit_once(": ").ok_or(format!("keepsock.txt: {entry}"))?;
    let mut groups: Vec<((usize, usize), Vec<&str>)> = Vec::new();
    for name in list.split(", ") {
        let place = *places.get(name).ok_or(format!("keepsock.txt: {title}: no {name}"))?;
        debug_assert!(declarations.contains_key(name));
        match groups.iter_mut().find(|(other, _)| *other == place) {
            Some((_, names)) => names.push(name),
            None => groups.push((place, vec![name])),
        }
    }
    let mut lines = vec![format!("  {title}")];
    for ((topic, section), names) in groups {
        let topic = &topics[topic];
        let place = format!("{}.h {}", topic.name, section + 1);
        let list = format!("{place}: {}", names.join(", "));
        for (at, line) in wrap(list.split(' '), WIDTH - 11).iter().enumerate() {
            lines.push(format!("{}{line}", if at == 0 { "    " } else { "        " }));
        }
    }
    Ok(lines)
}

// ---- Tests of the generator -------------------------------------------------------------------

const DECLARED: &str = "/**\n * One.\n */\n#define KEEPSOCK_ONE 1\n\n\
    /**\n * A kind.\n */\nenum keepsock_kind\n#if __STDC_VERSION__ >= 202311L\n  : int32_t\n#endif\n {\n\
    /**\n     * A.\n     */\n    KEEPSOCK_KIND_A = 1,\n};\n\n\
    /**\n * An object.\n */\ntypedef struct keepsock_object keepsock_object;\n\n\
    /**\n * Does.\n */\nint32_t keepsock_do(keepsock_object *object);\n";

#[test]
fn generator_reports_a_declaration_in_no_section_or_in_two() {
    let declarations = parse(DECLARED);
    let topic = |text: &str| Topic::parse("basics", text).unwrap();
    let all = "- KEEPSOCK_ONE\n- keepsock_kind\n- keepsock_object";
    let faults = |text: &str| places(&[topic(text)], &declarations).err().unwrap_or_default();
    assert_eq!(faults(&format!("A.\n= First\n{all}\n- keepsock_do\n")), "");
    assert!(faults(&format!("A.\n= First\n{all}\n")).contains("keepsock_do is in no section"));
    let twice = format!("A.\n= First\n{all}\n- keepsock_do\n= Second\n- keepsock_do\n");
    assert!(faults(&twice).contains("keepsock_do is also in"));
    let other = format!("A.\n= First\n{all}\n- keepsock_do\n- keepsock_gone\n");
    assert!(faults(&other).contains("keepsock_gone is not declared"));
    assert!(Topic::parse("basics", "A.\n= First\n= Second\n- keepsock_do\n").is_err());
}

#[test]
fn generator_replaces_rust_links_and_omits_rust_examples() {
    let text = [
        "At [`queue_limit`](ServeOptions::queue_limit), [`Dead`](crate::CloseReason::Dead).",
        "",
        "```",
        "let x = 1;",
        "```",
    ];
    assert_eq!(
        for_c(&text.map(str::to_owned)),
        ["At keepsock_serve_options_set_queue_limit(), KEEPSOCK_CLOSE_DEAD."]
    );
    assert_eq!(
        c_names("See [`ErrorKind::TimedOut`] and [`Other`]."),
        "See KEEPSOCK_ERR_TIMED_OUT and Other."
    );
}

#[test]
fn generator_rejects_a_type_of_a_later_header() {
    let declarations = parse(DECLARED);
    let topics = [
        Topic::parse("basics", "A.\n= First\n- keepsock_do\n").unwrap(),
        Topic::parse(
            "options",
            "B.\n= First\n- keepsock_object\n- KEEPSOCK_ONE\n- keepsock_kind\n",
        )
        .unwrap(),
    ];
    let places = places(&topics, &declarations).unwrap();
    let fault = header(&topics[0], 0, &topics, &declarations, &places).unwrap_err();
    assert!(fault.contains("keepsock_do in basics.h uses keepsock_object of options.h"), "{fault}");
    assert!(header(&topics[1], 1, &topics, &declarations, &places).is_ok());
}
