//! The C ABI: what the library exports, what the header says of it, and what C
//! makes of the header.

// The texts are the same on every system; what compiles C here is Unix.
#![cfg(all(feature = "capi", unix))]
// Clippy's leave for tests is for test functions, not for what they call.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
// It calls keepsock_status_name() and keepsock_version(), as C would.
#![allow(unsafe_code)]

#[path = "abi/header.rs"]
mod header;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CStr;
use std::fs;
use std::mem::offset_of;
use std::path::{Path, PathBuf};
use std::process::Command;

use header::{Item, What};
use keepsock::ffi::{self, keepsock_log_level};
use keepsock::{End, ErrorKind, Family, LengthPrefix, Protocol, TcpState, WhenFull, WhenSlow};

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
    for file in fs::read_dir(root().join("src/ffi")).unwrap() {
        let text = fs::read_to_string(file.unwrap().path()).unwrap();
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

/// A1: every exported function is in the header, and the reverse.
#[test]
fn the_header_declares_what_the_source_exports() {
    let (source, header) = (functions_in_source(), functions_in_header());
    assert!(source.len() > 50, "only {source:?}: is the source read rightly?");
    assert_same_names(&source, &header);
    assert!(source.iter().all(|name| name.starts_with("keepsock_")));
}

/// A1: and so does the shared library that cargo built beside this test.
#[cfg(target_os = "linux")]
#[test]
fn the_library_exports_what_the_header_declares() {
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

/// What is missing in the comment of one function or type of functions.
fn faults_of_function(item: &Item) -> Vec<String> {
    let mut faults = Vec::new();
    let comment = item.comment.as_str();
    if documented_parameters(comment) != item.parameters() {
        faults.push(format!(
            "has {:?}, documents {:?}",
            item.parameters(),
            documented_parameters(comment)
        ));
    }
    if comment.contains("@return") != item.returns_something() {
        faults.push("@return is missing, or too much".to_owned());
    }
    let begins = comment.starts_with(|c: char| c.is_ascii_uppercase());
    if !begins {
        faults.push(format!("does not begin with a sentence: {comment:?}"));
    }
    if item.is_function() && !has_since(comment) {
        faults.push("does not say since when".to_owned());
    }
    faults
}

fn has_since(comment: &str) -> bool {
    let numbers = comment.split("Since ").skip(1);
    numbers.into_iter().any(|after| after.starts_with(|c: char| c.is_ascii_digit()))
}

fn faults_of(item: &Item) -> Vec<String> {
    let mut faults = match item.what() {
        What::Function(_) | What::Callback(_) => faults_of_function(item),
        // The second name of an enumeration, in C.
        What::Typedef(name) if is_enum(name) => Vec::new(),
        _ if item.comment.is_empty() => vec!["has no comment".to_owned()],
        _ => Vec::new(),
    };
    for member in item.members.iter().filter(|member| member.comment.is_empty()) {
        faults.push(format!("{:?} has no comment", member.text));
    }
    faults
}

fn is_enum(name: &str) -> bool {
    items().iter().any(|item| item.what() == What::Enum(name))
}

/// A2: every item has a comment; that of a function names each parameter, says
/// what is returned and since when there is such a function.
#[test]
fn everything_in_the_header_is_documented() {
    let mut faults = Vec::new();
    for item in items() {
        faults.extend(faults_of(&item).iter().map(|fault| format!("{}: {fault}", item.name())));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// A2: the comments are for C programmers: no Rust, no Markdown links.
#[test]
fn the_header_speaks_c() {
    let text = header::text();
    for (number, line) in text.lines().enumerate() {
        for foreign in ["](", "[`", "```", "crate::", "super::", "std::", "keepsock::", "Some("] {
            // A log event's target, between quotation marks, is what C is given.
            let line = line.replace("\"keepsock::", "\"");
            assert!(!line.contains(foreign), "line {}: {foreign:?} in {line:?}", number + 1);
        }
    }
}

/// A2: what the comments speak of exists: statuses (also in their short form,
/// `_TIMED_OUT`), functions and other names.
#[test]
fn the_comments_name_what_there_is() {
    let items = items();
    let mut known: BTreeSet<&str> = items.iter().map(Item::name).collect();
    for item in &items {
        known.extend(item.members.iter().map(member_name));
    }
    let text = header::text();
    let comments = text.split("/**").skip(1).filter_map(|part| part.split("*/").next());
    let mut unknown = BTreeSet::new();
    let mut mentioned = 0;
    for comment in comments {
        for word in comment.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')) {
            let full = match word.strip_prefix('_') {
                Some(short) if short.starts_with(|c: char| c.is_ascii_uppercase()) => {
                    format!("KEEPSOCK_ERR_{short}")
                }
                _ if word.to_ascii_lowercase().starts_with("keepsock_") => word.to_owned(),
                _ => continue,
            };
            mentioned += 1;
            // What a status function prints for a number of a later version.
            if !known.contains(full.as_str()) && full != "KEEPSOCK_ERR_UNKNOWN" {
                unknown.insert(full);
            }
        }
    }
    assert!(mentioned > 200, "only {mentioned} names: are the comments read rightly?");
    assert!(unknown.is_empty(), "{unknown:?}");
}

/// `KEEPSOCK_ERR_OS = -99`, `char stage[16]` and `void (*open)(void *user)`.
fn member_name(member: &Item) -> &str {
    if let Some((name, _)) = member.text.split_once("(*").and_then(|(_, s)| s.split_once(')')) {
        return name;
    }
    match member.text.split_once('=') {
        Some((name, _)) => name.trim(),
        None => header::last_name(&member.text),
    }
}

/// The checks above find what they look for.
#[test]
fn the_reader_of_the_header_reads() {
    let text = "#ifndef H\n#define H\n/** One. */\n#define KEEPSOCK_X 1 // one\n\
        enum keepsock_e\n#if A\n : int32_t\n#endif // A\n{ /** A. */ KEEPSOCK_A = 0, KEEPSOCK_B = 1, };\n\
        typedef struct keepsock_o keepsock_o;\n\
        /** S. */ typedef struct { int a; /** B. */ char b[8]; void (*c)(int, void *user); } keepsock_s;\n\
        typedef void (*keepsock_f)(keepsock_o *o, void *user);\n\
        extern \"C\" {\n/**\n * Does.\n *\n * @param o  An o.\n * @return x\n */\n\
        int32_t keepsock_do(keepsock_o *o,\n    size_t len);\nconst char *keepsock_v(void);\n\
        void keepsock_n(void);\n}\n#endif\n";
    let items = header::items(text);
    let whats: Vec<_> = items.iter().map(Item::what).collect();
    assert_eq!(
        whats,
        [
            What::Macro("KEEPSOCK_X"),
            What::Enum("keepsock_e"),
            What::Opaque("keepsock_o"),
            What::Struct("keepsock_s"),
            What::Callback("keepsock_f"),
            What::Function("keepsock_do"),
            What::Function("keepsock_v"),
            What::Function("keepsock_n"),
        ]
    );
    let members: Vec<_> = items[3].members.iter().map(member_name).collect();
    assert_eq!(members, ["a", "b", "c"]);
    assert_eq!((items[1].comment.as_str(), items[1].members.len()), ("", 2));
    assert_eq!(faults_of(&items[1]).len(), 2, "no comment, and none of B");
    assert_eq!(items[5].parameters(), ["o", "len"]);
    assert_eq!(faults_of(&items[5]).len(), 2, "len, and since when: {:?}", faults_of(&items[5]));
    assert!(items[6].parameters().is_empty());
    let returns: Vec<_> = items[4..].iter().map(Item::returns_something).collect();
    assert_eq!(returns, [false, true, true, false]);
}

// ---- the header in C (A2, E1) --------------------------------------------------------------------

/// A compiler that was asked for by name: the caller's `variable`, or `default`.
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

/// Compiles and runs a C program; what it prints.
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

/// A C program that prints expressions and their values, run.
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

/// Rust's `TimedOut` as C's `TIMED_OUT`.
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

macro_rules! layout {
    ($type:ident: $($field:ident)*) => {
        vec![
            (format!("sizeof({})", stringify!($type)), size(size_of::<ffi::$type>())),
            $((format!("offsetof({}, {})", stringify!($type), stringify!($field)),
               size(offset_of!(ffi::$type, $field))),)*
        ]
    };
}

fn size(n: usize) -> i64 {
    i64::try_from(n).unwrap()
}

/// Every number of the header, as Rust has it.
fn numbers_in_rust() -> BTreeMap<String, i64> {
    let mut all = variants!("KEEPSOCK_ERR", ErrorKind:
        InvalidArgument InvalidEndpoint WrongState Unsupported NoMemory Panic Closed Cancelled
        TimedOut WouldBlock Draining EndOfStream TooLong IdleLimit HeartbeatMissed NotFound LookupFailed Refused
        Unreachable Reset Dead AddressInUse AddressNotAvailable PermissionDenied NoDescriptors
        Stalled Os);
    all.extend(variants!("KEEPSOCK_FAMILY", Family: Any Ipv4 Ipv6));
    all.extend(variants!("KEEPSOCK_PROTOCOL", Protocol: Tcp Unix Udp UnixDatagram UnixPacket));
    all.extend(variants!("KEEPSOCK_END", End: ClosedByPeer ResetByPeer Dead Unreachable
        Stalled IdleLimit HeartbeatMissed Cancelled ClosedHere TooLong Overrun));
    all.extend(variants!("KEEPSOCK_TCP_STATE", TcpState: Established SynSent SynReceived FinWait1
        FinWait2 TimeWait Closed CloseWait LastAck Listen Closing));
    all.extend(variants!("KEEPSOCK_LENGTH_PREFIX", LengthPrefix: U8 U16Be U16Le U32Be U32Le));
    all.extend(variants!("KEEPSOCK_WHEN_FULL", WhenFull: Wait Refuse));
    all.extend(variants!("KEEPSOCK_WHEN_SLOW", WhenSlow: Disconnect DropOldest));
    all.extend(variants!("KEEPSOCK_LOG_LEVEL", keepsock_log_level:
        Off Error Warn Info Debug Trace));
    all.extend(constants!(KEEPSOCK_OK KEEPSOCK_INFINITE KEEPSOCK_VERSION_MAJOR
        KEEPSOCK_VERSION_MINOR KEEPSOCK_VERSION_PATCH));
    all.extend(constants!(KEEPSOCK_TCP_FIN KEEPSOCK_TCP_SYN KEEPSOCK_TCP_RST KEEPSOCK_TCP_PSH
        KEEPSOCK_TCP_ACK KEEPSOCK_TCP_URG KEEPSOCK_TCP_ECE KEEPSOCK_TCP_CWR));
    all.into_iter().collect()
}

/// Every layout of the header, as Rust has it.
fn layouts_in_rust() -> BTreeMap<String, i64> {
    let mut all = layout!(keepsock_slice: data len);
    all.extend(layout!(keepsock_buffer: data cap));
    all.extend(layout!(keepsock_keepalive: enabled idle_ms interval_ms count));
    all.extend(layout!(keepsock_credentials: pid uid gid));
    all.extend(layout!(keepsock_five_tuple:
        protocol local_port remote_port local_address remote_address));
    all.extend(layout!(keepsock_snapshot: state end rtt_us rtt_variation_us min_rtt_us
        last_sent_us last_received_us retransmits unacknowledged unsent unread bytes_sent
        bytes_received segments_sent segments_received mss congestion_window peer_window
        heartbeats congestion_control));
    all.extend(layout!(keepsock_under_way: state address));
    all.extend(layout!(keepsock_attempt: status os_error elapsed_us address stage));
    all.extend(layout!(keepsock_server_counters: accepted retried exhausted refused
        crowded denied));
    all.extend(layout!(keepsock_callbacks:
        size open data writable finished timer drain close connect_failed));
    all.extend(layout!(keepsock_broadcast: sent cut dropped));
    all.extend(layout!(keepsock_service_stats: uptime_ms accepting connections opened closed
        received written sent queued dropped dropped_messages ends));
    all.extend(layout!(keepsock_segment:
        captured_us seq ack payload_len timestamp timestamp_echo window urgent mss source_port
        destination_port window_scale flags ip_version ttl traffic_class dont_fragment
        sack_permitted has_timestamps options_len options source_address destination_address
        line));
    all.extend(layout!(keepsock_address: ip zone port family));
    all.extend(layout!(keepsock_datagram_info:
        from to local interface_index truncated ttl tos len original_len received_at_ns unix_name
        unix_name_len has_credentials credentials));
    all.extend(layout!(keepsock_datagram_stats: dropped unread receive_buffer unsent send_buffer
        denied errors path_mtu));
    all.extend(layout!(keepsock_outgoing: data len to local interface_index question));
    all.extend(layout!(keepsock_incoming: data cap info));
    all.extend(layout!(keepsock_datagram_error: status os_error to from path_mtu));
    all.extend(layout!(keepsock_handed: name server datagram));
    all.push(("sizeof(keepsock_fd)".to_owned(), size(size_of::<ffi::keepsock_fd>())));
    all.push(("sizeof(keepsock_handler)".to_owned(), size(size_of::<ffi::keepsock_handler>())));
    let handler = size_of::<ffi::keepsock_datagram_handler>();
    all.push(("sizeof(keepsock_datagram_handler)".to_owned(), size(handler)));
    all.push(("sizeof(keepsock_on_retry)".to_owned(), size(size_of::<ffi::keepsock_on_retry>())));
    let callback = size_of::<ffi::keepsock_log_callback>();
    all.push(("sizeof(keepsock_log_callback)".to_owned(), size(callback)));
    for name in [
        "err",
        "family",
        "protocol",
        "end",
        "tcp_state",
        "length_prefix",
        "when_full",
        "when_slow",
        "log_level",
    ] {
        all.push((format!("sizeof(keepsock_{name})"), 4));
    }
    all.into_iter().collect()
}

/// What is new in the header is new in the tables above.
fn assert_same(c: &BTreeMap<String, i64>, rust: &BTreeMap<String, i64>) {
    let names: BTreeSet<_> = c.keys().chain(rust.keys()).collect();
    let differ = names.into_iter().filter(|name| c.get(*name) != rust.get(*name));
    let differ: Vec<_> = differ
        .map(|name| format!("{name}: {:?} in C, {:?} in tests/abi.rs", c.get(name), rust.get(name)))
        .collect();
    assert!(differ.is_empty() && !c.is_empty(), "{}", differ.join("\n"));
}

/// A2, E1: every macro and every enumerator has in C the value that it has in Rust.
#[test]
fn numbers_are_the_same_in_c() {
    let mut names = Vec::new();
    for item in items() {
        match item.what() {
            What::Macro(name) => names.push(name.to_owned()),
            What::Enum(_) => names.extend(item.members.iter().map(|m| member_name(m).to_owned())),
            _ => {}
        }
    }
    assert_same(&values_in_c("numbers", &names), &numbers_in_rust());
}

/// A1: every structure has in C the layout that it has in Rust.
#[test]
fn layouts_are_the_same_in_c() {
    let mut questions = BTreeSet::new();
    for item in items() {
        match item.what() {
            What::Macro(_) | What::Opaque(_) | What::Function(_) => continue,
            _ => {}
        }
        let name = item.name();
        questions.insert(format!("sizeof({name})"));
        if matches!(item.what(), What::Struct(_)) {
            let members = item.members.iter().map(member_name);
            questions.extend(members.map(|member| format!("offsetof({name}, {member})")));
        }
    }
    let questions: Vec<_> = questions.into_iter().collect();
    assert_same(&values_in_c("layouts", &questions), &layouts_in_rust());
}

/// E1: a status is called in the library what it is called in the header.
#[test]
fn statuses_have_their_names() {
    for (name, status) in numbers_in_rust() {
        if name.starts_with("KEEPSOCK_ERR_") || name == "KEEPSOCK_OK" {
            let told = ffi::keepsock_status_name(i32::try_from(status).unwrap());
            // SAFETY: a static string, as the header says.
            assert_eq!(unsafe { CStr::from_ptr(told) }.to_str(), Ok(name.as_str()));
        }
    }
}

/// A2: the header's version is the library's.
#[test]
fn one_version() {
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
/// Clang has all warnings under one name; these ask for what a header cannot do
/// (padding), or for a C++ older than ours.
const EVERYTHING: [&str; 4] =
    ["-Weverything", "-Wno-padded", "-Wno-c++98-compat", "-Wno-c++98-compat-pedantic"];
const STRICT_C: [&str; 2] = ["-Wstrict-prototypes", "-Wmissing-prototypes"];
const STRICT_CXX: [&str; 2] = ["-Wold-style-cast", "-Wzero-as-null-pointer-constant"];

/// Compiles the header by itself.
fn assert_clean(compiler: &str, language: &str, standard: &str) {
    let mut compile = Command::new(compiler);
    compile.args(["-fsyntax-only", "-x", language, &format!("-std={standard}")]);
    compile.args(STRICT);
    compile.args(if language == "c" { &STRICT_C[..] } else { &STRICT_CXX[..] });
    let version = Command::new(compiler).arg("--version").output().unwrap().stdout;
    if String::from_utf8_lossy(&version).contains("clang") {
        compile.args(EVERYTHING);
    }
    // Twice: the second time it must add nothing.
    let source = scratch(&format!("{compiler}-{standard}.h").replace('/', "_"));
    fs::write(&source, "#include \"keepsock.h\"\n#include \"keepsock.h\"\n").unwrap();
    compile.arg("-I").arg(root().join("include")).arg(&source);
    let output = compile.output().unwrap();
    let _ = fs::remove_file(&source);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{compiler} -std={standard}:\n{said}");
    println!("{compiler} -std={standard}: clean");
}

/// The caller's compiler, and the others that are known to be here.
fn compilers(first: String, others: [&str; 2]) -> Vec<String> {
    let others = others.map(str::to_owned).into_iter().filter(|name| is_there(name));
    let all: BTreeSet<String> = [first].into_iter().chain(others).collect();
    all.into_iter().collect()
}

/// A2: clean as C99, C11 and C2x under strict warnings.
#[test]
fn the_header_is_clean_as_c() {
    let cc = compiler("CC", "cc");
    assert!(is_there(&cc), "a C compiler is needed: {cc}");
    for compiler in compilers(cc, ["gcc", "clang"]) {
        for standard in ["c99", "c11", "c2x"] {
            assert_clean(&compiler, "c", standard);
        }
    }
}

/// A2: clean as C++11, C++17 and C++20 under strict warnings.
#[test]
fn the_header_is_clean_as_cxx() {
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
