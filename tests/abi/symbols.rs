//! The C ABI: the exported symbols, the documentation in the headers, and the numbers of the headers.

// The texts are the same on each system. The compilation of C needs Unix.
// It calls keepsock_status_name() and keepsock_version(), as C would.
#![allow(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::header;
use crate::support::header::{Item, What};
use keepsock::ffi::{self, keepsock_framing_kind, keepsock_log_level, keepsock_watch};
use keepsock::{
    AcceptPolicy, CloseReason, ErrorKind, Family, LengthFormat, OverflowPolicy, Protocol, Sockopt,
    TcpState,
};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn items() -> Vec<Item> {
    header::items(&header::text())
}

fn functions_in_header() -> BTreeSet<String> {
    items().iter().filter(|i| i.is_function()).map(|i| i.name().to_owned()).collect()
}

fn functions_in_source() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut paths = vec![root().join("src/ffi")];
    while let Some(path) = paths.pop() {
        if path.is_dir() {
            paths.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        let text = fs::read_to_string(path).unwrap();
        let exported = text.split("no_mangle)]").skip(1);
        found.extend(exported.map(|after| {
            let (_, name) = after.split_once(" fn ").expect("a function after no_mangle");
            name.split(['(', '<']).next().unwrap_or("").to_owned()
        }));
    }
    found
}

fn assert_same_names(there: &BTreeSet<String>, header: &BTreeSet<String>) {
    let differ: Vec<_> = there.symmetric_difference(header).collect();
    assert!(differ.is_empty(), "on one side only: {differ:?}");
}

// ---- symbols (A1, A2) ----------------------------------------------------------------------

/// A1: the header declares each exported function, and no others.
#[test]
fn header_declares_the_functions_of_the_source() {
    let (source, header) = (functions_in_source(), functions_in_header());
    assert!(source.len() > 50, "only {source:?}: is the source read rightly?");
    assert_same_names(&source, &header);
    assert!(source.iter().all(|name| name.starts_with("keepsock_")));
}

/// A1: the shared library that cargo built for this test exports the same functions.
#[cfg(target_os = "linux")]
#[test]
fn library_exports_the_functions_of_the_header() {
    let program = std::env::current_exe().unwrap();
    let library = program.parent().unwrap().join("libkeepsock.so");
    if !library.exists() {
        return println!("skipped: {} was not built", library.display());
    }
    let output = Command::new("nm").args(["-D", "--defined-only"]).arg(&library).output();
    let output = output.expect("nm, which comes with the C compiler");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let exported: BTreeSet<_> = text
        .lines()
        .filter_map(|line| line.split_whitespace().nth(2))
        .filter(|name| name.starts_with("keepsock_"))
        .map(str::to_owned)
        .collect();
    if exported.is_empty() {
        // Cargo gives the library of every set of features the same name.
        return println!("skipped: {} is one without the C symbols", library.display());
    }
    assert_same_names(&exported, &functions_in_header());
}

// ---- the header as a manual (A2) --------------------------------------------------------------

/// The `@param` names of a comment.
fn documented_parameters(comment: &str) -> Vec<&str> {
    let named = comment.split("@param").skip(1);
    named.filter_map(|after| after.split_whitespace().next()).collect()
}

/// Finds faults of the comment of one function or type of functions.
fn faults_of_function(item: &Item) -> Vec<String> {
    let mut faults = Vec::new();
    let comment = item.comment.as_str();
    let (all, documented) = (item.parameters(), documented_parameters(comment));
    // The first page describes these parameters of all functions.
    let is_object = |at: usize| {
        let first = item.text.split(['(', ',']).nth(1).unwrap_or("").trim_start_matches("const ");
        at == 0 && first.starts_with("keepsock_") && !first.contains("**")
    };
    let is_described = |at: usize| match all[at] {
        "error" if at > 0 => item.text.ends_with("keepsock_error **error)") && at + 1 == all.len(),
        "size" => at > 0 && all[at - 1] == "out",
        _ => item.is_function() && is_object(at),
    };
    let is_needed = |at: &usize| documented.contains(&all[*at]) || !is_described(*at);
    let parameters: Vec<_> = (0..all.len()).filter(is_needed).map(|at| all[at]).collect();
    if documented != parameters {
        faults.push(format!("has {parameters:?}, documents {documented:?}"));
    }
    if comment.contains("@return") != item.returns_something() {
        faults.push("@return is missing, or too much".to_owned());
    }
    let begins = comment.starts_with(|c: char| c.is_ascii_uppercase());
    if !begins {
        faults.push(format!("does not begin with a sentence: {comment:?}"));
    }
    for convention in ["@since 0.2", "@param error  May be NULL.", "@param size  sizeof *out."] {
        if comment.lines().any(|line| words(line) == words(convention)) {
            faults.push(format!("repeats {convention:?}, which holds for all functions"));
        }
    }
    faults
}

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

fn faults_of(item: &Item) -> Vec<String> {
    let mut faults = match item.what() {
        What::Function(_) | What::Callback(_) => faults_of_function(item),
        _ if item.comment.is_empty() => vec!["has no comment".to_owned()],
        _ => Vec::new(),
    };
    for member in item.members.iter().filter(|member| member.comment.is_empty()) {
        faults.push(format!("{:?} has no comment", member.text));
    }
    faults
}

/// A2: each item has a comment. The comment of a function names each parameter and the result. Each
/// header names the version that added its functions.
#[test]
fn header_documents_each_item() {
    let mut faults = Vec::new();
    for item in items() {
        faults.extend(faults_of(&item).iter().map(|fault| format!("{}: {fault}", item.name())));
    }
    for path in header::paths().iter().skip(1) {
        if !header::read(path).contains("\n * @since 0.2") {
            faults.push(format!("{path}: does not say since when"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// A2: the comments are for C programmers: they have no Rust and no Markdown links.
#[test]
fn header_comments_contain_no_rust() {
    let text = header::text();
    for (number, line) in text.lines().enumerate() {
        for foreign in ["](", "[`", "```", "crate::", "super::", "std::", "keepsock::", "Some("] {
            // The target of a log event, in quotation marks, is a value that C gets.
            let line = line.replace("\"keepsock::", "\"");
            assert!(!line.contains(foreign), "line {}: {foreign:?} in {line:?}", number + 1);
        }
    }
}

/// A2: each name in a comment exists: statuses (also in their short form, `_TIMED_OUT`), functions
/// and other names.
#[test]
fn header_comments_name_existing_items() {
    let items = items();
    let mut known: BTreeSet<&str> = items.iter().map(Item::name).collect();
    for item in &items {
        known.extend(item.members.iter().map(header::member_name));
    }
    let text = header::text();
    let comments = text.split("/**").skip(1).filter_map(|part| part.split("*/").next());
    let mut unknown = BTreeSet::new();
    let mut mentioned = 0;
    for comment in comments {
        for word in comment.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')) {
            // "An _free function", "a KEEPSOCK_ERR_ number": the names of groups.
            if word.ends_with('_') {
                continue;
            }
            let full = match word.strip_prefix('_') {
                Some(short)
                    if short.starts_with(char::is_uppercase) && short.to_uppercase() == short =>
                {
                    format!("KEEPSOCK_ERR_{short}")
                }
                _ if word.to_ascii_lowercase().starts_with("keepsock_") => word.to_owned(),
                _ => continue,
            };
            mentioned += 1;
            // A status function returns KEEPSOCK_ERR_UNKNOWN for a number of a later version.
            if !known.contains(full.as_str()) && full != "KEEPSOCK_ERR_UNKNOWN" {
                unknown.insert(full);
            }
        }
    }
    assert!(mentioned > 200, "only {mentioned} names: are the comments read rightly?");
    assert!(unknown.is_empty(), "{unknown:?}");
}

/// A2: a function that returns a status lists more than success. Each call that the tests make
/// checks whether the list is complete (tests/support/statuses.rs).
#[test]
fn return_of_each_status_function_lists_statuses() {
    let items = items();
    let lists = header::statuses(&items);
    let takes_error = |item: &&Item| stores_error(item);
    let functions: Vec<_> = items.iter().filter(|i| i.is_function()).filter(takes_error).collect();
    assert!(functions.len() > 100, "only {}", functions.len());
    let bare: Vec<_> = functions.iter().filter(|f| lists[f.name()].is_empty()).collect();
    assert!(bare.is_empty(), "{bare:?}");
    let read_line = &lists["keepsock_client_read_line"];
    for kind in [ErrorKind::TooLong, ErrorKind::EndOfStream, ErrorKind::TimedOut] {
        assert!(read_line.contains(&kind.code()), "{kind:?}: {read_line:?}");
    }
    assert!(!read_line.contains(&ErrorKind::Refused.code()));
}

/// Whether a function returns a status and stores an error. keepsock_error_print() takes one.
fn stores_error(item: &Item) -> bool {
    item.text.starts_with("int32_t ") && item.text.ends_with("keepsock_error **error)")
}

/// Finds faults of the @return of a function. The list has each status with its own cause. A reference
/// to the list of another function is a fault.
fn faults_of_list(item: &Item) -> Vec<String> {
    let comment = item.comment.as_str();
    let (returned, entries) = (header::returned(comment), header::entries(comment));
    let mut faults = Vec::new();
    let mut listed = BTreeSet::new();
    for (head, cause) in &entries {
        if cause.len() < 4 || cause.contains("KEEPSOCK_ERR_") {
            faults.push(format!("{head}: a cause is written out: {cause:?}"));
        }
        for name in head.split(", ") {
            if !name.starts_with("KEEPSOCK_ERR_") || !listed.insert(name) {
                faults.push(format!("{name}: a status is named in full, and once"));
            }
        }
    }
    let introduction = returned.split("\n- ").next().unwrap_or("");
    for chain in ["hose of", "any status of", "As keepsock_", "KEEPSOCK_ERR_"] {
        if item.text.starts_with("int32_t ") && introduction.contains(chain) {
            faults.push(format!("{chain:?}: each status is an entry of the list"));
        }
    }
    if stores_error(item) && entries.is_empty() {
        faults.push("has no list of statuses".to_owned());
    }
    faults
}

/// A2: each function lists every status with its cause.
#[test]
fn return_of_function_lists_each_status_with_its_cause() {
    let mut faults = Vec::new();
    for path in header::paths() {
        for item in header::items(&header::read(&path)).iter().filter(|i| i.is_function()) {
            let name = item.name();
            faults.extend(faults_of_list(item).iter().map(|fault| format!("{name}: {fault}")));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn chain_of_lists_is_a_fault() {
    let function = |returned: &str| Item {
        comment: format!("Does.\n\n@return {returned}"),
        text: "int32_t keepsock_do(keepsock_error **error)".to_owned(),
        ..Item::default()
    };
    let faults = |returned: &str| faults_of_list(&function(returned)).len();
    assert_eq!(
        faults("KEEPSOCK_OK, or\n- KEEPSOCK_ERR_OS: it failed\n- KEEPSOCK_ERR_CLOSED: closed"),
        0
    );
    assert_eq!(faults("Those of keepsock_client_read()."), 2, "a chain, and no list");
    assert_eq!(faults("KEEPSOCK_OK, KEEPSOCK_ERR_OS, _CLOSED."), 2, "a status outside the list");
    assert_eq!(faults("KEEPSOCK_OK, or\n- KEEPSOCK_ERR_OS, _CLOSED: it failed"), 1, "a short name");
    assert_eq!(
        faults("KEEPSOCK_OK, or\n- KEEPSOCK_ERR_OS: it failed\n- KEEPSOCK_ERR_OS: again"),
        1
    );
}

/// The checks of this file find their faults.
#[test]
fn header_checks_find_their_faults() {
    let text = "#ifndef H\n#define H\n/** One. */\n#define KEEPSOCK_X 1 // one\n\
        #if A\n/** T. */\ntypedef int keepsock_t;\n#else\ntypedef long keepsock_t;\n#endif\n\
        /** E. */\ntypedef int32_t keepsock_e;\nenum {\n KEEPSOCK_A = 0, /**< A. */\n KEEPSOCK_B = 1\n};\n\
        /* A section. */\n\
        typedef struct keepsock_o keepsock_o;\n\
        /** S. */ typedef struct { int a; /** B. */ char b[8]; void (*c)(int, void *user); } keepsock_s;\n\
        typedef void (*keepsock_f)(keepsock_o *o, void *user);\n\
        extern \"C\" {\n/**\n * Does.\n *\n * @param out  An s.\n * @return x\n */\n\
        int32_t keepsock_do(keepsock_o *o,\n    size_t len, keepsock_s *out, size_t size);\nconst char *keepsock_v(void);\n\
        void keepsock_n(void);\n}\n#endif\n";
    let items = header::items(text);
    let whats: Vec<_> = items.iter().map(Item::what).collect();
    assert_eq!(
        whats,
        [
            What::Macro("KEEPSOCK_X"),
            What::Typedef("keepsock_t"),
            What::Enum("keepsock_e"),
            What::Opaque("keepsock_o"),
            What::Struct("keepsock_s"),
            What::Callback("keepsock_f"),
            What::Function("keepsock_do"),
            What::Function("keepsock_v"),
            What::Function("keepsock_n"),
        ]
    );
    let members: Vec<_> = items[4].members.iter().map(header::member_name).collect();
    assert_eq!(members, ["a", "b", "c"]);
    assert_eq!((items[2].comment.as_str(), items[2].members.len()), ("E.", 2));
    assert_eq!(items[2].members[0].comment, "A.");
    assert_eq!(faults_of(&items[2]).len(), 1, "B has no comment");
    assert_eq!(faults_of(&items[3]).len(), 1, "the comment of a section is not its comment");
    assert_eq!(items[6].parameters(), ["o", "len", "out", "size"]);
    assert_eq!(faults_of(&items[6]).len(), 1, "len: {:?}", faults_of(&items[6]));
    let mut repeated = items[6].clone();
    repeated.comment += "\n@since 0.2\n@param error   May be NULL.";
    assert_eq!(faults_of(&repeated).len(), 3, "{:?}", faults_of(&repeated));
    assert!(items[7].parameters().is_empty());
    let returns: Vec<_> = items[5..].iter().map(Item::returns_something).collect();
    assert_eq!(returns, [false, true, true, false]);
}

// ---- the header in C (A2, E1) --------------------------------------------------------------------

/// The name of a compiler: the caller's `variable`, or `default`.
fn compiler(variable: &str, default: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| default.to_owned())
}

fn is_there(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|o| o.status.success())
}

fn scratch(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("abi");
    fs::create_dir_all(&dir).unwrap();
    dir.join(format!("{}-{name}", std::process::id()))
}

/// Compiles and runs a C program, and returns its output.
fn run_c(name: &str, source: &str) -> String {
    let (file, program) = (scratch(&format!("{name}.c")), scratch(name));
    fs::write(&file, source).unwrap();
    let cc = compiler("CC", "cc");
    let mut compile = Command::new(&cc);
    compile.arg("-std=c99").arg("-Wall").arg("-Werror").arg("-I").arg(root().join("include"));
    let built = compile.arg("-o").arg(&program).arg(&file).output();
    let built = built.unwrap_or_else(|e| panic!("a C compiler is needed: {cc}: {e}"));
    assert!(built.status.success(), "{cc}: {}", String::from_utf8_lossy(&built.stderr));
    let ran = Command::new(&program).output().unwrap();
    assert!(ran.status.success());
    let _ = fs::remove_file(&file);
    let _ = fs::remove_file(&program);
    String::from_utf8(ran.stdout).unwrap()
}

/// Compiles and runs a C program that prints expressions and their values.
fn values_in_c(name: &str, expressions: &[String]) -> BTreeMap<String, i64> {
    let mut source = "#include <stdio.h>\n#include \"keepsock.h\"\nint main(void) {\n".to_owned();
    for expression in expressions {
        source +=
            &format!("    printf(\"%s=%lld\\n\", \"{expression}\", (long long)({expression}));\n");
    }
    source += "    return 0;\n}\n";
    let output = run_c(name, &source);
    let pairs = output.lines().map(|line| {
        let (expression, value) = line.rsplit_once('=').unwrap();
        (expression.to_owned(), value.parse().unwrap())
    });
    pairs.collect()
}

/// Converts Rust's `TimedOut` to C's `TIMED_OUT`.
fn screaming(name: &str) -> String {
    let mut out = String::new();
    for (i, c) in name.char_indices() {
        if c.is_ascii_uppercase() && i > 0 {
            out.push('_');
        }
        out.push(c.to_ascii_uppercase());
    }
    out
}

macro_rules! variants {
    ($prefix:literal, $type:ident: $($variant:ident)*) => {
        vec![$((format!("{}_{}", $prefix, screaming(stringify!($variant))),
                i64::from($type::$variant as i32))),*]
    };
}

macro_rules! constants {
    ($($name:ident)*) => { vec![$((stringify!($name).to_owned(), i64::from(ffi::$name))),*] };
}

/// Each number of the header, as Rust has it.
pub fn numbers_in_rust() -> BTreeMap<String, i64> {
    let mut all = variants!("KEEPSOCK_ERR", ErrorKind:
        InvalidArgument InvalidEndpoint WrongState Unsupported NoMemory Panic Closed Cancelled
        TimedOut WouldBlock Draining EndOfStream TooLong IdleTimeout HeartbeatTimeout Malformed NotFound LookupFailed Refused
        Unreachable Reset Dead AddressInUse AddressNotAvailable PermissionDenied NoDescriptors
        Stalled Os);
    all.extend(variants!("KEEPSOCK_FAMILY", Family: Any Ipv4 Ipv6));
    all.extend(variants!("KEEPSOCK_PROTOCOL", Protocol: Tcp Unix Udp UnixDatagram UnixPacket));
    all.extend(variants!("KEEPSOCK_CLOSE", CloseReason: PeerClosed PeerReset Dead Unreachable
        Stalled IdleTimeout HeartbeatTimeout Cancelled Local MessageTooLong SlowConsumer
        MessageMalformed FileFailed Detached));
    all.extend(variants!("KEEPSOCK_TCP_STATE", TcpState: Established SynSent SynReceived FinWait1
        FinWait2 TimeWait Closed CloseWait LastAck Listen Closing));
    all.extend(variants!("KEEPSOCK_LENGTH_FORMAT", LengthFormat: U8 U16Be U16Le U32Be U32Le U24Be
        U24Le U64Be U64Le VarintMqtt VarintProtobuf));
    all.extend(variants!("KEEPSOCK_FRAMING", keepsock_framing_kind:
        Raw Lines Delimited Prefixed LengthField Fixed));
    all.extend(variants!("KEEPSOCK_ACCEPT_POLICY", AcceptPolicy: Wait Reject));
    all.extend(variants!("KEEPSOCK_OVERFLOW_POLICY", OverflowPolicy: Disconnect DropOldest));
    all.extend(variants!("KEEPSOCK_SOCKOPT", Sockopt: SendBuffer RecvBuffer Tos ReusePort
        NotsentLowat DeferAccept Mark Priority Transparent Freebind OobInline MaxSegment FlowLabel Nodelay
        Cork ReuseAddress));
    all.extend(variants!("KEEPSOCK_WATCH", keepsock_watch: Remove Read Write));
    all.extend(variants!("KEEPSOCK_LOG_LEVEL", keepsock_log_level:
        Off Error Warn Info Debug Trace));
    all.extend(constants!(KEEPSOCK_OK KEEPSOCK_INFINITE KEEPSOCK_TEXT_SIZE KEEPSOCK_VERSION_MAJOR
        KEEPSOCK_VERSION_MINOR KEEPSOCK_VERSION_PATCH));
    all.extend(constants!(KEEPSOCK_TCP_FIN KEEPSOCK_TCP_SYN KEEPSOCK_TCP_RST KEEPSOCK_TCP_PSH
        KEEPSOCK_TCP_ACK KEEPSOCK_TCP_URG KEEPSOCK_TCP_ECE KEEPSOCK_TCP_CWR));
    all.into_iter().collect()
}

/// Checks that each new item of the header is in the tables above.
fn assert_same(c: &BTreeMap<String, i64>, rust: &BTreeMap<String, i64>) {
    let names: BTreeSet<_> = c.keys().chain(rust.keys()).collect();
    let differ = names.into_iter().filter(|name| c.get(*name) != rust.get(*name));
    let differ: Vec<_> = differ
        .map(|name| format!("{name}: {:?} in C, {:?} in tests/abi.rs", c.get(name), rust.get(name)))
        .collect();
    assert!(differ.is_empty() && !c.is_empty(), "{}", differ.join("\n"));
}

/// A2, E1: each macro and each enumerator has the same value in C and in Rust.
#[test]
fn numbers_of_header_equal_those_of_rust() {
    let mut names = Vec::new();
    for item in items() {
        match item.what() {
            What::Macro(name) => names.push(name.to_owned()),
            What::Enum(_) => {
                names.extend(item.members.iter().map(|m| header::member_name(m).to_owned()))
            }
            _ => {}
        }
    }
    assert_same(&values_in_c("numbers", &names), &numbers_in_rust());
}

/// The parameters of a function or a function type: the type and the name.
fn typed_parameters(item: &Item) -> Vec<(String, String)> {
    let (_, list) = item.text.rsplit_once('(').unwrap();
    let parameters = list.trim_end_matches([')', ';']).split(',').map(str::trim);
    let named = parameters.filter(|parameter| *parameter != "void").map(|parameter| {
        let name = header::last_name(parameter);
        (parameter.trim_end_matches(name).trim().to_owned(), name.to_owned())
    });
    named.collect()
}

/// Finds deviations of a function or a function type from the order and the names of arguments that
/// keepsock.h states.
fn faults_of_shape(item: &Item) -> Vec<String> {
    let parameters = typed_parameters(item);
    let names: Vec<&str> = parameters.iter().map(|(_, name)| name.as_str()).collect();
    let last = names.len().saturating_sub(1);
    let mut faults = Vec::new();
    for (at, (of, name)) in parameters.iter().enumerate() {
        let next = names.get(at + 1).copied().unwrap_or("");
        let fault = match name.as_str() {
            "buf" if !["len", "cap"].contains(&next) => "is not followed by its size",
            "out" if next != "size" => "is not followed by size",
            "items" if next != "count" => "is not followed by count",
            "user" if of != "void *" => "is no void pointer",
            "user" if !item.is_function() && at != last => "is not the last argument",
            "data" | "max_len" | "needed" | "ms" => "has another name in other functions",
            _ if of == "keepsock_error **" && at != last => "is not the last argument",
            _ if of.split(' ').any(|word| ["int", "long", "short", "unsigned"].contains(&word)) => {
                "has a type whose size differs between platforms"
            }
            _ if of.starts_with("int64_t") && !name.ends_with("_ms") => {
                if ["uid", "gid", "pid", "mode"].contains(&name.as_str()) {
                    continue;
                }
                "is a time without _ms in its name"
            }
            _ => continue,
        };
        faults.push(format!("{name} {fault}"));
    }
    faults
}

/// A1: the arguments of all functions and callbacks have one order and one name for one thing.
#[test]
fn arguments_have_one_shape() {
    let mut faults = Vec::new();
    let mut checked = 0;
    for item in items() {
        if matches!(item.what(), What::Function(_) | What::Callback(_)) {
            checked += 1;
            faults.extend(
                faults_of_shape(&item).iter().map(|fault| format!("{}: {fault}", item.name())),
            );
        }
        for member in item.members.iter().filter(|member| member.text.contains("(*")) {
            faults.extend(
                faults_of_shape(member).iter().map(|fault| format!("{}: {fault}", member.text)),
            );
        }
    }
    assert!(checked > 200, "only {checked}");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    let bad = |text: &str| {
        let item = Item { text: text.to_owned(), ..Item::default() };
        faults_of_shape(&item).len()
    };
    assert_eq!(bad("typedef void (*keepsock_f)(void *user, int32_t level)"), 1);
    assert_eq!(
        bad("int32_t keepsock_f(const void *buf, int64_t time, keepsock_x *out, int fd)"),
        4
    );
    assert_eq!(bad("int32_t keepsock_f(keepsock_error **error, long items, size_t size)"), 2);
}

/// E1: the library returns the name of each status in the header.
#[test]
fn status_names_equal_those_of_the_header() {
    for (name, status) in numbers_in_rust() {
        if name.starts_with("KEEPSOCK_ERR_") || name == "KEEPSOCK_OK" {
            let told = ffi::keepsock_status_name(i32::try_from(status).unwrap());
            // SAFETY: a static string, as the header says.
            assert_eq!(unsafe { CStr::from_ptr(told) }.to_str(), Ok(name.as_str()));
        }
    }
}

/// A2: the library has the version of the header.
#[test]
fn version_of_library_equals_that_of_header() {
    let header = format!(
        "{}.{}.{}",
        ffi::KEEPSOCK_VERSION_MAJOR,
        ffi::KEEPSOCK_VERSION_MINOR,
        ffi::KEEPSOCK_VERSION_PATCH
    );
    assert_eq!(header, env!("CARGO_PKG_VERSION"));
    // SAFETY: a static string, as the header says.
    let library = unsafe { CStr::from_ptr(ffi::keepsock_version()) };
    assert_eq!(library.to_str(), Ok(header.as_str()));
    assert!(header::text().contains(&format!("The version of this header: {header}.")));
}

const STRICT: [&str; 9] = [
    "-Wall",
    "-Wextra",
    "-Wpedantic",
    "-Wconversion",
    "-Wsign-conversion",
    "-Wshadow",
    "-Wundef",
    "-Wcast-qual",
    "-Werror",
];
/// Clang enables all warnings by one name. These warn of padding, which a header cannot avoid, and
/// of C++ features that the headers may use.
const EVERYTHING: [&str; 4] =
    ["-Weverything", "-Wno-padded", "-Wno-c++98-compat", "-Wno-c++98-compat-pedantic"];
const STRICT_C: [&str; 2] = ["-Wstrict-prototypes", "-Wmissing-prototypes"];
const STRICT_CXX: [&str; 2] = ["-Wold-style-cast", "-Wzero-as-null-pointer-constant"];

/// Compiles each header alone.
fn assert_clean(compiler: &str, language: &str, standard: &str) {
    let version = Command::new(compiler).arg("--version").output().unwrap().stdout;
    let is_clang = String::from_utf8_lossy(&version).contains("clang");
    for header in header::paths() {
        let mut compile = Command::new(compiler);
        compile.args(["-fsyntax-only", "-x", language, &format!("-std={standard}")]);
        compile.args(STRICT);
        compile.args(if language == "c" { &STRICT_C[..] } else { &STRICT_CXX[..] });
        if is_clang {
            compile.args(EVERYTHING);
        }
        // The second inclusion must add nothing.
        let name = format!("{compiler}-{standard}-{header}").replace('/', "_");
        let source = scratch(&name);
        let include = format!("#include \"{header}\"\n");
        fs::write(&source, include.repeat(2)).unwrap();
        compile.arg("-I").arg(root().join("include")).arg(&source);
        let output = compile.output().unwrap();
        let _ = fs::remove_file(&source);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{header}, {compiler} -std={standard}:\n{said}");
    }
    println!("{compiler} -std={standard}: clean");
}

/// The caller's compiler, and the other installed ones.
fn compilers(first: String, others: [&str; 2]) -> Vec<String> {
    let others = others.map(str::to_owned).into_iter().filter(|name| is_there(name));
    let all: BTreeSet<String> = [first].into_iter().chain(others).collect();
    all.into_iter().collect()
}

/// A2: each header compiles alone as C99, C11, C17 and C23 under strict warnings.
#[test]
fn header_alone_is_clean_as_c() {
    let cc = compiler("CC", "cc");
    assert!(is_there(&cc), "a C compiler is needed: {cc}");
    for compiler in compilers(cc, ["gcc", "clang"]) {
        for standard in ["c99", "c11", "c17", "c2x"] {
            assert_clean(&compiler, "c", standard);
        }
    }
}

/// A2: each header compiles alone as C++11, C++17 and C++20 under strict warnings.
#[test]
fn header_alone_is_clean_as_cxx() {
    let cxx = compiler("CXX", "c++");
    if !is_there(&cxx) {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "a C++ compiler is needed: {cxx}");
        return println!("skipped: no C++ compiler");
    }
    for compiler in compilers(cxx, ["g++", "clang++"]) {
        for standard in ["c++11", "c++17", "c++20"] {
            assert_clean(&compiler, "c++", standard);
        }
    }
}
