//! The sites of system calls in the sources, to find the sites that no scene reaches.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use regex::Regex;

/// A site: the file, the line, and the name of the system call, as a failpoint reports them.
pub type Place = (String, u32, String);

/// The functions of `sys` whose callers are the sites, with the system call that they make.
const FORWARDED: [(&str, &str); 8] = [
    ("recv", "recvfrom"),
    ("send", "sendto"),
    ("recv_slices", "recvmsg"),
    ("send_slices", "sendmsg"),
    ("poll", "poll"),
    ("poll_any", "poll"),
    ("peek", "recv"),
    ("accept", "accept4"),
];

/// Each site, with the function that contains it.
pub fn sites() -> BTreeMap<Place, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    rust_files(root, "src", &mut files);
    let methods = methods(&fs::read_to_string(root.join("src/sys/failpoints.rs")).unwrap());
    files.iter().flat_map(|(file, text)| sites_of(file, text, &methods)).collect()
}

fn rust_files(root: &Path, directory: &str, found: &mut Vec<(String, String)>) {
    const OTHERS: [&str; 8] = [
        "src/sys/kernel.rs",
        "src/sys/failpoints.rs",
        "src/sys/kqueue.rs",
        "src/sys/windows.rs",
        "src/sys/windows_poller.rs",
        "src/sys/datagram/windows.rs",
        "src/stream/tests.rs",
        "src/manual.rs",
    ];
    for entry in fs::read_dir(root.join(directory)).unwrap() {
        let entry = entry.unwrap();
        let file = format!("{directory}/{}", entry.file_name().to_str().unwrap());
        if file == "src/fuzzing" {
            continue;
        }
        if entry.file_type().unwrap().is_dir() {
            rust_files(root, &file, found);
        } else if file.ends_with(".rs") && !file.ends_with("/model.rs") && !OTHERS.contains(&&*file)
        {
            found.push((file, fs::read_to_string(entry.path()).unwrap()));
        }
    }
}

/// The methods of the reference to a socket, with the system call of each.
fn methods(text: &str) -> BTreeMap<String, String> {
    let (_, list) = text.rsplit_once("methods! {").unwrap();
    let mut found = BTreeMap::new();
    let mut call = String::new();
    let pattern = Regex::new(r#""(\w+)":|([\w#]+)\([^)]*\) ->"#).unwrap();
    for line in list.lines() {
        for part in pattern.captures_iter(line) {
            match (part.get(1), part.get(2)) {
                (Some(name), _) => call = name.as_str().to_owned(),
                (_, Some(name)) => drop(found.insert(name.as_str().to_owned(), call.clone())),
                _ => {}
            }
        }
    }
    found
}

fn sites_of(file: &str, text: &str, methods: &BTreeMap<String, String>) -> Vec<(Place, String)> {
    let text = for_linux(text);
    let mut found = Vec::new();
    let mut add = |at: usize, call: &str| {
        let (function, is_forwarded) = function_at(&text, at);
        if !is_forwarded {
            let line = u32::try_from(text[..at].matches('\n').count() + 1).unwrap();
            found.push(((file.to_owned(), line, call.to_owned()), function));
        }
    };
    let each = |pattern: &str, add: &mut dyn FnMut(usize, &str)| {
        for found in Regex::new(pattern).unwrap().captures_iter(&text) {
            add(found.get(0).unwrap().start(), &found[1]);
        }
    };
    each(r#"\b(?:(?:super::)*(?:kernel|sys|super)::)call\(\s*"(\w+)""#, &mut add);
    if file.starts_with("src/sys/") {
        each(r"\b(?:super::)*kernel::(\w+)\(", &mut |at, name| {
            if name != "call" && name != "direct" {
                add(at, name);
            }
        });
        each(r"[^:]\bsyscall\(libc::SYS_(\w+)", &mut add);
        each(r"\bsockopt::(get|set|set_bytes)\b[(:]", &mut |at, name| {
            add(at, if name == "get" { "getsockopt" } else { "setsockopt" });
        });
    }
    if file == "src/sys/unix.rs" {
        // Not the definition.
        each(r"[^n] (poll)_all\(", &mut add);
    }
    each(r"\bsys::(\w+)\(", &mut |at, name| {
        if let Some((_, call)) = FORWARDED.iter().find(|(function, _)| *function == name) {
            add(at, call);
        }
    });
    // A method of the reference itself, or of a variable with it.
    let bound = Regex::new(r"let (\w+) = SockRef::from\(").unwrap();
    let variables: Vec<_> = bound.captures_iter(&text).map(|c| c[1].to_owned()).collect();
    let method = Regex::new(r"\s*\.([\w#]+)\(").unwrap();
    for closure in Regex::new(r"\|s: &SockRef<'_>, t\| s\.(\w+)").unwrap().captures_iter(&text) {
        if let Some(call) = methods.get(&closure[1]) {
            add(closure.get(1).unwrap().start(), call);
        }
    }
    let names = std::iter::once(r"SockRef::from".to_owned()).chain(variables);
    let mut seen = std::collections::BTreeSet::new();
    for name in names {
        for start in Regex::new(&format!(r"\b{name}\b")).unwrap().find_iter(&text) {
            let at = start.end() + arguments(&text[start.end()..]);
            let Some(next) =
                method.captures(&text[at..]).filter(|m| m.get(0).unwrap().start() == 0)
            else {
                continue;
            };
            let (place, name) = (at + next.get(1).unwrap().start(), &next[1]);
            if let Some(call) = methods.get(name).filter(|_| seen.insert(place)) {
                add(place, call);
            }
        }
    }
    found
}

/// The length of the arguments in parentheses at the beginning of a text; 0: there are none.
fn arguments(text: &str) -> usize {
    let mut depth = 0;
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return if at == 0 { 0 } else { at + 1 };
        }
    }
    0
}

/// The name of the function at this offset, and whether its callers are the sites.
fn function_at(text: &str, at: usize) -> (String, bool) {
    let function = Regex::new(r"(?m)^ *(?:pub(?:\([^)]*\))? )?(?:unsafe )?fn (\w+)").unwrap();
    let Some(last) = function.captures_iter(&text[..at]).last() else {
        return (String::new(), false);
    };
    let start = last.get(0).unwrap().start();
    let before: Vec<_> = text[..start].lines().rev().take(3).collect();
    (last[1].to_owned(), before.iter().any(|line| line.contains("track_caller")))
}

/// The text without comments, tests, and items of other platforms. Lines keep their numbers.
fn for_linux(text: &str) -> String {
    let mut kept: Vec<char> = text.chars().collect();
    let mut rest = String::new();
    for line in text.split_inclusive('\n') {
        match line.find("//") {
            Some(at) if !line[..at].contains('"') => {
                rest.push_str(&line[..at]);
                rest.extend(line[at..].chars().map(|c| if c == '\n' { c } else { ' ' }));
            }
            _ => rest.push_str(line),
        }
    }
    if rest.chars().count() == kept.len() {
        kept = rest.chars().collect();
    }
    let text: String = kept.into_iter().map(|c| if c.is_ascii() { c } else { ' ' }).collect();
    let mut bytes = text.clone().into_bytes();
    let attribute = Regex::new(r"#\[cfg\(([^\]]*)\)\]").unwrap();
    for found in attribute.captures_iter(&text) {
        let condition: String = found[1].split_whitespace().collect();
        let is_other = condition.starts_with("not(keepsock_linux")
            || condition.starts_with("not(any(keepsock_linux")
            || condition.starts_with("not(all(keepsock_linux")
            || condition.starts_with("not(any(target_os=\"linux\"")
            || condition.starts_with("not(unix")
            || condition.starts_with("all(feature=\"serve\",not(keepsock_linux")
            || condition.starts_with("all(feature=\"diag\",not(keepsock_linux")
            || condition.starts_with("not(debug_assertions")
            || condition.starts_with("windows")
            || condition.starts_with("test")
            || condition.starts_with("all(test")
            || condition.starts_with("keepsock_kqueue")
            || condition.starts_with("all(keepsock_kqueue")
            || condition.starts_with("keepsock_accept4")
            || condition == "target_vendor=\"apple\""
            || condition.starts_with("target_os=")
            || condition.starts_with("any(target_vendor=\"apple\"");
        if !is_other {
            continue;
        }
        let start = found.get(0).unwrap().end();
        let (mut depth, mut end) = (0, text.len());
        for (at, c) in text[start..].char_indices() {
            match c {
                '{' | '(' | '[' => depth += 1,
                '}' | ')' | ']' => depth -= 1,
                _ => {}
            }
            if (depth == 0 && (c == ';' || c == '}')) || depth < 0 {
                end = start + at;
                break;
            }
        }
        for byte in &mut bytes[start..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
    }
    String::from_utf8(bytes).unwrap()
}

#[test]
fn sites_of_a_text_are_found() {
    let methods = BTreeMap::from([("bind".to_owned(), "bind".to_owned())]);
    let text = "fn f() {\n    kernel::poll(1);\n    sys::recv(2)\n}\n\
                #[cfg_attr(feature = \"failpoints\", track_caller)]\nfn g() {\n    kernel::poll(1);\n}\n\
                #[cfg(test)]\nmod tests { fn h() { sys::send(1) } }\n\
                fn k(fd: i32) {\n    SockRef::from(&fd)\n        .bind(&name);\n    \
                sys::call(\"unlink\", || fs::remove_file(p));\n}\n";
    let found = sites_of("src/sys/x.rs", text, &methods);
    let found: Vec<_> =
        found.iter().map(|((_, line, call), f)| (*line, call.as_str(), f.as_str())).collect();
    let wanted = [(14, "unlink", "k"), (2, "poll", "f"), (3, "recvfrom", "f"), (13, "bind", "k")];
    assert_eq!(found, wanted);
}
