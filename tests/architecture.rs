//! The module structure that ARCHITECTURE.md describes.
//!
//! The tests read every path in the sources that starts with `crate`, `super`, `self` or the name
//! of a child module. Code for tests is ignored. `KEEPSOCK_MODULES=1 cargo test --all-features
//! --test architecture -- --nocapture` prints the modules, each with the modules that it uses.

#![allow(clippy::unwrap_used)] // A helper of a test is a test.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::iter::Peekable;
use std::path::Path;

use proc_macro2::{Delimiter, TokenStream, TokenTree, token_stream};

/// The top-level modules, from the lowest to the highest. A module may use the modules before it.
const LAYERS: [&str; 21] = [
    // Values, the operating system, waiting, log events.
    "types",
    "sys",
    "io",
    "log",
    // Modules that several kinds of sockets use.
    "options",
    "resolve",
    "bind",
    "socket_file",
    // The public API.
    "diag",
    "stream",
    "connect",
    "lookup",
    "reconnect",
    "listener",
    "serve",
    "datagram",
    "activation",
    // The C API, and its entrance into the crate.
    "internal",
    "ffi",
    // The fuzz targets, and checks of the manual.
    "fuzzing",
    "manual",
];

/// The modules in which `unsafe` is permitted.
const UNSAFE: [&str; 2] = ["sys", "ffi"];

/// Methods of the standard library that have the same name as a private method of the crate.
const STANDARD_METHODS: [&str; 12] = [
    "as_slice", "copied", "forget", "get", "is_empty", "len", "next", "push", "skip", "spawn",
    "try_lock", "zeroed",
];

type ModulePath = Vec<String>;

/// A source file, which is a module.
struct Module {
    path: ModulePath,
    /// Relative to the root of the repository.
    file: String,
    tokens: TokenStream,
}

/// A path that a module names, without the leading `crate`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Name(Vec<String>);

impl Module {
    fn layer(&self) -> &str {
        self.path.first().map_or("lib", String::as_str)
    }
}

#[test]
fn modules_use_only_modules_of_lower_layers() {
    let graph = top_level_graph(&modules());
    if std::env::var_os("KEEPSOCK_MODULES").is_some() {
        print_graph(&graph);
    }
    let problems = layer_problems(&graph);
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

fn layer_problems(graph: &Graph) -> Vec<String> {
    let layer = |name: &str| LAYERS.iter().position(|layer| *layer == name);
    let mut problems = Vec::new();
    for module in graph.keys().filter(|module| layer(module).is_none()) {
        problems.push(format!("src/{module}: not in LAYERS of tests/architecture.rs"));
    }
    for (from, (to, file)) in edges(graph) {
        if layer(from) <= layer(to) {
            problems.push(format!("{file}: {from} uses {to}, which is not below it"));
        }
    }
    problems.extend(cycle(graph).map(|cycle| format!("cycle: {}", cycle.join(" -> "))));
    problems
}

#[test]
fn modules_of_one_directory_form_no_cycle() {
    let graphs = directory_graphs(&modules());
    if std::env::var_os("KEEPSOCK_MODULES").is_some() {
        graphs.values().for_each(print_graph);
    }
    let cycles = graphs.values().filter_map(cycle);
    let problems: Vec<_> = cycles.map(|cycle| format!("cycle: {}", cycle.join(" -> "))).collect();
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

#[test]
fn ffi_imports_only_the_public_api_and_internal() {
    let problems = private_imports_of_ffi(&modules());
    assert!(problems.is_empty(), "neither public nor crate::internal:\n{}\n", problems.join("\n"));
}

fn private_imports_of_ffi(modules: &[Module]) -> Vec<String> {
    let public = exports(modules);
    let mut problems = Vec::new();
    for module in modules.iter().filter(|module| module.layer() == "ffi") {
        for Name(name) in names(module, modules) {
            let first = name.first().map_or("", String::as_str);
            if !["ffi", "internal"].contains(&first) && !public.contains_key(first) {
                problems.push(format!("{}: crate::{}", module.file, name.join("::")));
            }
        }
    }
    problems
}

#[test]
fn ffi_calls_only_listed_private_methods() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("src/internal.rs")).unwrap();
    let rows = text.lines().filter_map(|line| line.strip_prefix("//! | ")?.split(" | ").nth(1));
    let methods = rows.flat_map(|methods| methods.split('`').skip(1).step_by(2));
    let listed: BTreeSet<_> = methods.map(str::to_owned).collect();
    let called = private_calls_of_ffi(&modules());
    assert_eq!(called, listed, "the methods that ffi calls, and the list in src/internal.rs");
}

/// A method that is private to the crate is recognized by its name: no public function, no function of
/// ffi and no method of the standard library that ffi calls has the same name.
fn private_calls_of_ffi(modules: &[Module]) -> BTreeSet<String> {
    let of = |ffi: bool| modules.iter().filter(move |module| (module.layer() == "ffi") == ffi);
    let (mut private, mut public) = (BTreeSet::new(), BTreeSet::new());
    of(false).for_each(|module| functions(module.tokens.clone(), &mut private, &mut public));
    let mut own = BTreeSet::new();
    of(true).for_each(|module| words_after("fn", module.tokens.clone(), &mut own));
    let mut called = BTreeSet::new();
    of(true).for_each(|module| calls(module.tokens.clone(), &mut called));
    called.retain(|name| private.contains(name) && !public.contains(name) && !own.contains(name));
    called.retain(|name| !STANDARD_METHODS.contains(&name.as_str()));
    called
}

#[test]
fn only_ffi_uses_internal() {
    assert_eq!(users_of_internal(&modules()), ["ffi"]);
}

fn users_of_internal(modules: &[Module]) -> Vec<String> {
    let graph = top_level_graph(modules);
    let users = edges(&graph).filter(|(_, (to, _))| *to == "internal");
    users.map(|(from, _)| from.to_owned()).collect()
}

#[test]
fn unsafe_occurs_only_in_sys_and_ffi() {
    assert_eq!(unsafe_outside(&modules()), Vec::<String>::new());
}

/// The files that contain `unsafe` without permission.
fn unsafe_outside(modules: &[Module]) -> Vec<String> {
    let is_unsafe = |token: &TokenTree| matches!(token, TokenTree::Ident(i) if i == "unsafe");
    let outside = modules.iter().filter(|module| !UNSAFE.contains(&module.layer()));
    let found = outside.filter(|module| contains(module.tokens.clone(), &is_unsafe));
    found.map(|module| module.file.clone()).collect()
}

/// The file that records the number of unsafe blocks of each module.
const UNSAFE_COUNTS: &str = "tests/unsafe.txt";
const BLESS_UNSAFE: &str = "KEEPSOCK_BLESS=1 cargo test --all-features --test architecture unsafe_";

/// A change that needs more unsafe code records that deliberately, and a reviewer sees the number.
#[test]
fn unsafe_blocks_of_each_module_are_recorded() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(UNSAFE_COUNTS);
    let counts = unsafe_counts(&modules());
    if std::env::var_os("KEEPSOCK_BLESS").is_some() {
        fs::write(&path, &counts).unwrap();
    }
    print!("{counts}");
    let recorded = fs::read_to_string(&path).unwrap();
    let changes = unsafe_changes(&recorded, &counts);
    assert!(changes.is_empty(), "{}\nRecord the numbers: {BLESS_UNSAFE}", changes.join("\n"));
}

/// A line for each module that has unsafe blocks, or unsafe items: functions, traits and impls.
fn unsafe_counts(modules: &[Module]) -> String {
    let rows = modules.iter().filter_map(|module| {
        let (mut blocks, mut items) = (0, 0);
        count_unsafe(module.tokens.clone(), &mut blocks, &mut items);
        (blocks + items > 0).then_some((module.file.as_str(), blocks, items))
    });
    let rows: Vec<_> = rows.collect();
    let total = rows.iter().fold((0, 0), |sum, row| (sum.0 + row.1, sum.1 + row.2));
    let rows = rows.into_iter().chain([("total", total.0, total.1)]);
    rows.map(|(file, blocks, items)| format!("{file}: {blocks} blocks, {items} items\n")).collect()
}

fn count_unsafe(tokens: TokenStream, blocks: &mut usize, items: &mut usize) {
    let mut rest = tokens.into_iter().peekable();
    while let Some(token) = rest.next() {
        match token {
            TokenTree::Group(group) => count_unsafe(group.stream(), blocks, items),
            TokenTree::Ident(word) if word == "unsafe" => match rest.peek() {
                Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                    *blocks += 1;
                }
                // `#[unsafe(no_mangle)]` is an attribute of each C function.
                Some(TokenTree::Group(_)) => {}
                _ => *items += 1,
            },
            _ => {}
        }
    }
}

/// The lines that differ, except the total.
fn unsafe_changes(recorded: &str, counts: &str) -> Vec<String> {
    let rows = |text: &str| -> BTreeMap<String, String> {
        let rows = text.lines().filter_map(|line| line.split_once(": "));
        rows.filter(|(file, _)| *file != "total").map(|(f, n)| (f.into(), n.into())).collect()
    };
    let (old, new) = (rows(recorded), rows(counts));
    let files: BTreeSet<_> = old.keys().chain(new.keys()).collect();
    let changed = files.into_iter().filter(|file| old.get(*file) != new.get(*file));
    let number = |of: Option<&String>| of.map_or("no unsafe code", String::as_str).to_owned();
    let change = |file: &String| {
        format!("{file}: {}, recorded: {}", number(new.get(file)), number(old.get(file)))
    };
    changed.map(change).collect()
}

#[test]
fn check_reports_an_additional_unsafe_block() {
    let text = "#[unsafe(no_mangle)] unsafe extern \"C\" fn f() { unsafe { g(unsafe { 1 }) } }";
    let before = unsafe_counts(&[module("src/sys/a.rs", text), module("src/io.rs", "fn f() {}")]);
    assert_eq!(before, "src/sys/a.rs: 2 blocks, 1 items\ntotal: 2 blocks, 1 items\n");
    let after = unsafe_counts(&[module("src/sys/a.rs", &text.replace('1', "unsafe { 1 }"))]);
    let changes = unsafe_changes(&before, &after);
    assert_eq!(changes, ["src/sys/a.rs: 3 blocks, 1 items, recorded: 2 blocks, 1 items"]);
    assert_eq!(unsafe_changes(&before, &before), Vec::<String>::new());
}

/// On a thread that `std` starts, pthread_cancel(3) would end the process (E3).
#[test]
fn threads_start_only_in_sys() {
    for module in modules().iter().filter(|module| module.layer() != "sys") {
        let mut called = BTreeSet::new();
        calls(module.tokens.clone(), &mut called);
        let found = called.contains("spawn") || called.contains("spawn_scoped");
        assert!(!found, "{}: start the thread by sys::spawn_thread", module.file);
    }
}

/// The files that use the types of `std` instead of those of `sys::sync`, with the reason. A static
/// outlives one run of a model, so its type is that of `std`.
const STD_SYNC: [(&str, &str); 9] = [
    ("src/sys/sync.rs", "exports the types"),
    ("src/activation/handover.rs", "a static"),
    ("src/activation/inherited.rs", "a static"),
    ("src/ffi/basics/log.rs", "a static"),
    ("src/fuzzing/framing.rs", "a fuzz target, which is a user of the library"),
    ("src/resolve/threads.rs", "the type of two statics"),
    ("src/stream/closer.rs", "the type of a static"),
    ("src/sys/failpoints.rs", "statics, and delays in system calls"),
    ("src/sys/fork.rs", "the type of statics"),
];

/// The names that `sys::sync` exports or could export. `Arc`, `OnceLock` and channels keep the types of `std`.
const SYNC: [(&str, &[&str]); 3] = [
    ("hint", &["spin_loop"]),
    ("sync", &["Condvar", "Mutex", "MutexGuard", "RwLock", "Barrier", "atomic"]),
    ("thread", &["Builder", "JoinHandle", "sleep", "yield_now", "park", "park_timeout"]),
];

/// A model does not know a lock, an atomic number or a pause of `std`: it would miss orders, or wait
/// forever.
#[test]
fn modules_synchronize_with_the_types_of_sys_sync() {
    let mut users = BTreeMap::new();
    for module in modules() {
        let found = std_sync(module.tokens);
        if !found.is_empty() {
            users.insert(module.file, found);
        }
    }
    let listed: BTreeSet<_> = STD_SYNC.iter().map(|(file, _)| *file).collect();
    let files: BTreeSet<_> = users.keys().map(String::as_str).collect();
    assert_eq!(files, listed, "files that use std instead of sys::sync, and STD_SYNC: {users:?}");
    let find = |text: &str| std_sync(text.parse().unwrap());
    let wrong = "use std::sync::{Arc, Mutex as M, atomic::{AtomicU8, Ordering}}; \
                 fn f() { std::thread::sleep(x); core::hint::spin_loop() } use std::{io, thread};";
    let expected = ["hint::spin_loop", "sync::Mutex", "sync::atomic", "thread", "thread::sleep"];
    assert_eq!(find(wrong), BTreeSet::from(expected.map(str::to_owned)));
    assert_eq!(find("use std::sync::*;"), BTreeSet::from(["sync".to_owned()]));
    let right = "use std::sync::{Arc, PoisonError}; use crate::sys::sync::{Mutex, atomic}; \
                 use std::time::Duration; fn f() -> std::thread::Result<()> { sleep(x) }";
    assert_eq!(find(right), BTreeSet::new());
}

/// The names of `std` that `sys::sync` exports, and whole modules that contain them.
fn std_sync(tokens: TokenStream) -> BTreeSet<String> {
    let mut paths = BTreeSet::new();
    std_paths(tokens, &mut paths);
    let mut found = BTreeSet::new();
    for Name(path) in paths {
        let Some((module, names)) =
            path.first().and_then(|module| SYNC.iter().find(|(name, _)| name == module))
        else {
            continue;
        };
        match path.get(1) {
            None => drop(found.insert((*module).to_owned())),
            Some(name) if names.contains(&name.as_str()) => {
                found.insert(format!("{module}::{name}"));
            }
            Some(_) => {}
        }
    }
    found
}

/// The paths that start with `std` or `core`, without this first part.
fn std_paths(tokens: TokenStream, found: &mut BTreeSet<Name>) {
    let mut rest = tokens.into_iter().peekable();
    while let Some(token) = rest.next() {
        match &token {
            TokenTree::Group(group) => std_paths(group.stream(), found),
            TokenTree::Ident(first) if first == "std" || first == "core" => {
                Reader { modules: &[], found }.path(Vec::new(), &mut rest);
            }
            _ => {}
        }
    }
}

/// `keepsock_linux` is the one condition for Linux alone, so that `--cfg keepsock_portable` compiles the
/// code of the other systems on Linux. A list with another system names an interface that both have.
#[test]
fn code_for_linux_alone_has_the_condition_keepsock_linux() {
    for module in modules() {
        let found = names_linux_alone(module.tokens, false);
        assert!(!found, "{}: write keepsock_linux instead of target_os = \"linux\"", module.file);
    }
    let finds = |text: &str| names_linux_alone(text.parse().unwrap(), false);
    assert!(finds("#[cfg(any(target_os = \"linux\", target_os = \"android\"))] fn f() {}"));
    assert!(finds("fn f() -> bool { cfg!(not(target_os = \"linux\")) }"));
    assert!(!finds("#[cfg(any(target_os = \"linux\", target_vendor = \"apple\"))] fn f() {}"));
    assert!(!finds("#[cfg(any(keepsock_linux, target_os = \"freebsd\"))] fn f() {}"));
}

/// `shared`: the tokens are those of an `any` that also names another system.
fn names_linux_alone(tokens: TokenStream, shared: bool) -> bool {
    let mut last = String::new();
    tokens.into_iter().any(|token| match token {
        TokenTree::Group(group) => {
            let text = group.stream().to_string();
            let mut systems = text.split("target_os = ").skip(1);
            let is_other =
                |name: &str| !["\"linux", "\"android"].iter().any(|l| name.starts_with(l));
            let others = text.contains("target_vendor") || systems.any(is_other);
            names_linux_alone(group.stream(), shared || last == "any" && others)
        }
        TokenTree::Ident(word) => {
            last = word.to_string();
            false
        }
        TokenTree::Literal(value) => {
            last == "target_os" && value.to_string() == "\"linux\"" && !shared
        }
        TokenTree::Punct(_) => false,
    })
}

/// Items of other modules depend on the feature if `internal` names them.
#[test]
fn only_lib_ffi_and_what_internal_names_depend_on_the_feature_capi() {
    let modules = modules();
    let is_exempt = |module: &&Module| ["lib", "ffi"].contains(&module.layer());
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let internal = fs::read_to_string(root.join("src/internal.rs")).unwrap();
    let named: BTreeSet<_> = internal.split(|c: char| !is_in_name(c)).collect();
    for module in modules.iter().filter(|module| !is_exempt(module)) {
        for item in items_of_capi(module.tokens.clone()) {
            assert!(named.contains(item.as_str()), "{}: {item} depends on capi", module.file);
        }
    }
    let text = "#[cfg(feature = \"capi\")] #[inline] pub(crate) fn f() {} \
                mod m { #[cfg(any(feature = \"serve\", feature = \"capi\"))] use a::b; fn g() {} }";
    assert_eq!(items_of_capi(text.parse().unwrap()), ["f", "use"]);
}

/// The compiler does not report them: each test program uses a part of the functions.
#[test]
fn test_programs_name_every_function_of_their_support() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |directory: &str| {
        let mut files = Vec::new();
        rust_files(root, directory, &mut files);
        files.into_iter().map(|(_, text)| text.parse().unwrap()).collect::<Vec<TokenStream>>()
    };
    assert_eq!(unused_functions(&read("tests/support"), &read("tests")), Vec::<String>::new());
    let file = "trait T { fn a(); fn b(); } impl T for S { fn a() {} fn b() {} }";
    let all = [file, "S::a()"].map(|text| text.parse().unwrap());
    assert_eq!(unused_functions(&all[..1], &all), ["b"]);
}

#[test]
fn architecture_page_names_every_module_and_directory() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap();
    let mut files = BTreeSet::from(["src/lib.rs".to_owned()]);
    let mut directories = BTreeSet::new();
    for module in modules() {
        match module.file.rsplit_once('/').unwrap().0 {
            "src" => drop(files.insert(module.file)),
            directory => drop(directories.insert(format!("{directory}/"))),
        }
    }
    let expected: BTreeSet<_> = files.union(&directories).cloned().collect();
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `src/")?.split_once('`'));
    let named: BTreeSet<_> = rows.map(|(path, _)| format!("src/{path}")).collect();
    assert_eq!(named, expected);
    let layers = page.split("## Layers").nth(1).unwrap().split("## Directories").next().unwrap();
    let rows = layers.lines().filter(|line| line.starts_with('|'));
    let names = rows.flat_map(|row| row.split('`').skip(1).step_by(2));
    let mut listed: Vec<_> = names.collect();
    listed.reverse();
    let checks = ["fuzzing", "manual"];
    let order: Vec<_> = LAYERS.into_iter().filter(|layer| !checks.contains(layer)).collect();
    assert_eq!(listed, order);
}

#[test]
fn check_reports_a_cycle() {
    let modules = [
        module("src/a.rs", "use crate::{b::X, c}; #[cfg(test)] mod tests { use crate::d::Y; }"),
        module("src/a/child.rs", "pub(in crate::d) fn f() { super::super::c::g(); }"),
        module("src/b.rs", "mod inner { use super::super::c::Z; }"),
        module("src/c.rs", "fn f() -> crate::d::Y { crate::a::child::g() }"),
        module("src/d.rs", "use self::e;"),
    ];
    let graph = top_level_graph(&modules);
    let uses: Vec<_> = edges(&graph).map(|(from, (to, _))| format!("{from}{to}")).collect();
    assert_eq!(uses, ["ab", "ac", "bc", "ca", "cd"]);
    assert_eq!(cycle(&graph).unwrap(), ["a", "b", "c", "a"]);
    let files = [
        module("src/io/mod.rs", "mod x; mod y;"),
        module("src/io/x.rs", "use super::y::Y;"),
        module("src/io/y.rs", "use crate::io::x::X;"),
    ];
    let graphs = directory_graphs(&files);
    let cycles: Vec<_> = graphs.values().filter_map(cycle).collect();
    assert_eq!(cycles, [["io::x", "io::y", "io::x"]]);
}

#[test]
fn check_reports_a_higher_layer_and_an_unknown_module() {
    let modules = [module("src/types/mod.rs", "use crate::io::f;"), module("src/io/mod.rs", "")];
    let wrong = ["src/types/mod.rs: types uses io, which is not below it"];
    assert_eq!(layer_problems(&top_level_graph(&modules)), wrong);
    let unknown = ["src/x: not in LAYERS of tests/architecture.rs"];
    assert_eq!(layer_problems(&top_level_graph(&[module("src/x.rs", "")])), unknown);
}

#[test]
fn check_reports_what_ffi_must_not_use() {
    let modules = [
        module("src/lib.rs", "pub use stream::Client;"),
        module("src/ffi/a.rs", "use crate::{Client, internal::B, stream::C}; fn f() { x.step() }"),
        module(
            "src/stream/mod.rs",
            "impl C { pub(crate) fn step(&self) {} pub fn read(&self) {} }",
        ),
        module("src/internal.rs", ""),
    ];
    assert_eq!(private_imports_of_ffi(&modules), ["src/ffi/a.rs: crate::stream::C"]);
    assert_eq!(private_calls_of_ffi(&modules), BTreeSet::from(["step".to_owned()]));
}

#[test]
fn check_reports_a_user_of_internal_and_unsafe_code() {
    let modules = [
        module("src/ffi/a.rs", "use crate::internal::B; unsafe fn f() {}"),
        module("src/bind.rs", "use crate::internal::B; fn f() { unsafe { g() } }"),
        module("src/internal.rs", ""),
    ];
    assert_eq!(users_of_internal(&modules), ["bind", "ffi"]);
    assert_eq!(unsafe_outside(&modules), ["src/bind.rs"]);
}

fn is_in_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

// ---- graphs ------------------------------------------------------------------------------------

/// Each module with the modules that it uses, and with the first file that uses each.
type Graph = BTreeMap<String, BTreeMap<String, String>>;

fn top_level_graph(modules: &[Module]) -> Graph {
    let public = exports(modules);
    let mut graph = Graph::new();
    for module in modules.iter().filter(|module| !module.path.is_empty()) {
        let uses = graph.entry(module.layer().to_owned()).or_default();
        for Name(name) in names(module, modules) {
            let Some(first) = name.first() else { continue };
            // A public item belongs to the module that defines it. The C API uses it as public.
            let target = match public.get(first) {
                Some(_) if module.layer() == "ffi" => continue,
                Some(target) => target.first().unwrap(),
                None => first,
            };
            let is_module = modules.iter().any(|module| module.layer() == target);
            if is_module && target != module.layer() {
                uses.entry(target.clone()).or_insert_with(|| module.file.clone());
            }
        }
    }
    graph
}

/// For each directory the graph of the files and directories in it. The module of the directory
/// itself, `mod.rs`, is no part of the graph: it declares the others and may share items with them.
fn directory_graphs(modules: &[Module]) -> BTreeMap<ModulePath, Graph> {
    let mut graphs: BTreeMap<ModulePath, Graph> = BTreeMap::new();
    for module in modules {
        for Name(name) in names(module, modules) {
            let common = module.path.iter().zip(&name).take_while(|(a, b)| a == b).count();
            let (Some(from), Some(to)) = (module.path.get(common), name.get(common)) else {
                continue;
            };
            let directory = &module.path[..common];
            let is_module = |last: &String| {
                modules.iter().any(|module| {
                    module.path.starts_with(directory) && module.path.get(common) == Some(last)
                })
            };
            if common > 0 && is_module(to) {
                let graph = graphs.entry(directory.to_vec()).or_default();
                let full = |last: &String| format!("{}::{last}", directory.join("::"));
                graph.entry(full(to)).or_default();
                let uses = graph.entry(full(from)).or_default();
                uses.entry(full(to)).or_insert_with(|| module.file.clone());
            }
        }
    }
    graphs
}

fn edges(graph: &Graph) -> impl Iterator<Item = (&str, (&str, &str))> {
    graph.iter().flat_map(|(from, uses)| {
        uses.iter().map(move |(to, file)| (from.as_str(), (to.as_str(), file.as_str())))
    })
}

/// The modules of a cycle, the first one again at the end.
fn cycle(graph: &Graph) -> Option<Vec<&str>> {
    fn visit<'a>(
        graph: &'a Graph,
        module: &'a str,
        path: &mut Vec<&'a str>,
        done: &mut BTreeSet<&'a str>,
    ) -> Option<Vec<&'a str>> {
        if let Some(start) = path.iter().position(|on_path| *on_path == module) {
            let mut cycle = path[start..].to_vec();
            cycle.push(module);
            return Some(cycle);
        }
        if done.contains(module) {
            return None;
        }
        path.push(module);
        let found = graph.get(module)?.keys().find_map(|to| visit(graph, to, path, done));
        path.pop();
        done.insert(module);
        found
    }
    let mut done = BTreeSet::new();
    graph.keys().find_map(|module| visit(graph, module, &mut Vec::new(), &mut done))
}

fn print_graph(graph: &Graph) {
    for (module, uses) in graph {
        println!("{module} -> {}", uses.keys().map(String::as_str).collect::<Vec<_>>().join(", "));
    }
}

// ---- sources -----------------------------------------------------------------------------------

/// The paths and texts of the Rust files below a directory.
fn rust_files(root: &Path, directory: &str, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(root.join(directory)).unwrap() {
        let entry = entry.unwrap();
        let file = format!("{directory}/{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() {
            rust_files(root, &file, found);
        } else if file.ends_with(".rs") {
            found.push((file, fs::read_to_string(entry.path()).unwrap()));
        }
    }
}

fn module(file: &str, text: &str) -> Module {
    let name = file.trim_start_matches("src/").trim_end_matches(".rs").trim_end_matches("/mod");
    let path = name.split('/').map(str::to_owned).filter(|part| part != "lib").collect();
    Module { path, file: file.to_owned(), tokens: without_tests(text.parse().unwrap()) }
}

/// Every module of the library, except the modules of tests.
fn modules() -> Vec<Module> {
    let mut files = Vec::new();
    rust_files(Path::new(env!("CARGO_MANIFEST_DIR")), "src", &mut files);
    let mut found: Vec<_> = files.iter().map(|(file, text)| module(file, text)).collect();
    let of_tests = |name: &String| ["tests", "model", "properties"].contains(&name.as_str());
    found.retain(|module| !module.path.iter().any(of_tests));
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(found.len() > 80, "{} files", found.len());
    found
}

/// The items that lib.rs exports, with the path of each.
fn exports(modules: &[Module]) -> BTreeMap<String, Vec<String>> {
    let Some(root) = modules.iter().find(|module| module.path.is_empty()) else {
        return BTreeMap::new();
    };
    let paths = names(root, modules).into_iter();
    paths
        .filter_map(|Name(mut path)| Some((path.pop()?, path)))
        .filter(|(_, of)| !of.is_empty())
        .collect()
}

/// The tokens without items for tests and models: they have the attribute `cfg(test)` or a variant.
fn without_tests(tokens: TokenStream) -> TokenStream {
    let mut kept = Vec::new();
    let mut rest = tokens.into_iter().peekable();
    while let Some(token) = rest.next() {
        match (&token, rest.peek()) {
            (TokenTree::Punct(hash), Some(TokenTree::Group(attribute)))
                if hash.as_char() == '#' && is_for_tests(&attribute.stream().to_string()) =>
            {
                rest.next();
                // The item ends with a semicolon or with its block.
                for skipped in rest.by_ref() {
                    match skipped {
                        TokenTree::Punct(end) if end.as_char() == ';' => break,
                        TokenTree::Group(block) if block.delimiter() == Delimiter::Brace => break,
                        _ => {}
                    }
                }
            }
            (TokenTree::Group(group), _) => {
                let inside = without_tests(group.stream());
                kept.push(TokenTree::Group(proc_macro2::Group::new(group.delimiter(), inside)));
            }
            _ => kept.push(token),
        }
    }
    kept.into_iter().collect()
}

fn is_for_tests(attribute: &str) -> bool {
    let text = attribute.replace(' ', "");
    let starts = ["cfg(test)", "cfg(all(test,", "cfg(doctest)", "cfg(keepsock_model)"];
    starts.iter().any(|start| text.starts_with(start))
}

fn contains(tokens: TokenStream, is_wanted: &impl Fn(&TokenTree) -> bool) -> bool {
    tokens.into_iter().any(|token| match token {
        TokenTree::Group(group) => contains(group.stream(), is_wanted),
        token => is_wanted(&token),
    })
}

/// The names of the functions and modules that depend on the feature `capi`. For another item, its
/// first word.
fn items_of_capi(tokens: TokenStream) -> Vec<String> {
    let is_capi =
        |token: &TokenTree| matches!(token, TokenTree::Literal(l) if l.to_string() == "\"capi\"");
    let mut found = Vec::new();
    let mut rest = tokens.into_iter().peekable();
    while let Some(token) = rest.next() {
        let TokenTree::Group(group) = token else { continue };
        if group.delimiter() != Delimiter::Bracket || !contains(group.stream(), &is_capi) {
            found.extend(items_of_capi(group.stream()));
            continue;
        }
        let words = rest.clone().filter_map(|token| match token {
            TokenTree::Ident(word) => Some(word.to_string()),
            _ => None,
        });
        let mut words = words.skip_while(|word| word == "pub");
        let kind = words.next().unwrap_or_default();
        let has_name = ["const", "fn", "mod"].contains(&kind.as_str());
        found.push(if has_name { words.next().unwrap_or_default() } else { kind });
    }
    found
}

/// The names of the functions that are visible in the crate only, and the names of public functions.
fn functions(tokens: TokenStream, private: &mut BTreeSet<String>, public: &mut BTreeSet<String>) {
    let mut rest = tokens.into_iter().peekable();
    // `pub`, then its restriction, then words such as `const` and `unsafe`.
    let (mut is_pub, mut is_restricted) = (false, false);
    while let Some(token) = rest.next() {
        match token {
            TokenTree::Group(group) => {
                is_restricted |= is_pub && group.delimiter() == Delimiter::Parenthesis;
                functions(group.stream(), private, public);
            }
            TokenTree::Ident(word) if word == "pub" => (is_pub, is_restricted) = (true, false),
            TokenTree::Ident(word) if word == "fn" => {
                if let (true, Some(TokenTree::Ident(name))) = (is_pub, rest.peek()) {
                    let set = if is_restricted { &mut *private } else { &mut *public };
                    set.insert(name.to_string());
                }
                (is_pub, is_restricted) = (false, false);
            }
            TokenTree::Ident(word) if word == "const" || word == "unsafe" || word == "extern" => {}
            TokenTree::Literal(_) => {}
            _ => (is_pub, is_restricted) = (false, false),
        }
    }
}

/// The functions that `support` defines and that `all` files only define.
fn unused_functions(support: &[TokenStream], all: &[TokenStream]) -> Vec<String> {
    fn count(tokens: TokenStream, found: &mut BTreeMap<String, usize>) {
        let mut is_defined = false;
        for token in tokens {
            match token {
                TokenTree::Group(group) => count(group.stream(), found),
                TokenTree::Ident(word) => {
                    let word = word.to_string();
                    let follows = word == "fn";
                    *found.entry(word).or_default() += usize::from(!is_defined);
                    is_defined = follows;
                }
                _ => is_defined = false,
            }
        }
    }
    let (mut defined, mut uses) = (BTreeSet::new(), BTreeMap::new());
    support.iter().for_each(|file| words_after("fn", file.clone(), &mut defined));
    // The operator `-` calls it.
    defined.remove("sub");
    all.iter().for_each(|file| count(file.clone(), &mut uses));
    defined.retain(|name| uses.get(name).is_none_or(|uses| *uses == 0));
    defined.into_iter().collect()
}

/// The words that follow a keyword.
fn words_after(keyword: &str, tokens: TokenStream, found: &mut BTreeSet<String>) {
    let mut follows = false;
    for token in tokens {
        match token {
            TokenTree::Group(group) => words_after(keyword, group.stream(), found),
            TokenTree::Ident(word) => {
                if follows {
                    found.insert(word.to_string());
                }
                follows = word == keyword;
            }
            _ => follows = false,
        }
    }
}

/// Functions of libc that are called without a failpoint, with the reason.
const NO_FAILPOINT: [(&str, &str); 11] = [
    ("clock_gettime", "makes no system call on Linux (vdso(7)), and both clocks always exist"),
    ("sig", "computes a set of signals, or sets a handler in a forked child"),
    ("pthread_", "has no error for these arguments, and no call that can wait"),
    (
        "m",
        "mmap, madvise and munmap: once in a process, with a fallback that tests/it/fork.rs tests",
    ),
    ("if_", "several calls of libc: the machine of tests/abi/faults makes each of them fail"),
    ("dup2", "in a forked child, which must not take a lock"),
    ("execve", "in a forked child, which must not take a lock"),
    ("write", "in a forked child, which must not take a lock: other writes use `kernel`"),
    ("_exit", "does not return"),
    ("getpid", "has no error"),
    ("syscall", "inside `call`, which is the failpoint, or rt_sigtimedwait with a timeout of zero"),
];

/// Functions of libc that make no system call.
const NO_SYSTEM_CALL: [&str; 2] = ["gai_strerror", "freeaddrinfo"];

/// Functions of other libraries that make a system call.
const BY_OTHERS: [(&str, &str); 5] = [
    ("Socket", "new"),
    ("Socket", "new_raw"),
    ("Poll", "new"),
    ("Waker", "new"),
    ("UnixStream", "pair"),
];

/// Methods of other libraries that make a system call.
const METHODS_BY_OTHERS: [&str; 6] =
    ["metadata", "try_clone_to_owned", "register", "reregister", "deregister", "read_exact"];

/// Functions of `std::fs` that do not make a system call.
const PURE_FS: [&str; 2] = ["from_mode", "from_raw_handle"];

/// Every system call has a failpoint: it goes through `sys::kernel`.
#[test]
fn system_calls_have_failpoints() {
    let mut problems = Vec::new();
    for module in modules() {
        let layer = (module.layer().to_owned(), module.path.last().cloned().unwrap_or_default());
        // `intercepted` is inside `call`, which is the failpoint.
        let is_kernel = ["kernel", "failpoints", "intercepted", "windows"].contains(&&*layer.1);
        // The callbacks of `ffi` make no system call, and the fuzz targets are no part of the library.
        let is_other = ["ffi", "fuzzing"].contains(&&*layer.0);
        if layer.0 == "sys" && is_kernel || is_other {
            continue;
        }
        let mut found = Vec::new();
        bypasses(module.tokens.clone(), layer.0 == "sys", &mut found);
        problems.extend(found.into_iter().map(|name| format!("{}: {name}", module.file)));
    }
    assert!(
        problems.is_empty(),
        "no failpoint, use sys::kernel or sys::call:\n{}\n",
        problems.join("\n")
    );
}

#[test]
fn system_calls_without_failpoints_are_found() {
    let find = |text: &str| {
        let mut found = Vec::new();
        bypasses(text.parse().unwrap(), true, &mut found);
        found
    };
    assert_eq!(find("fn f() { g(unsafe { libc::recv(1) }) }"), ["libc::recv"]);
    assert_eq!(find("use socket2::{Domain, SockRef};"), ["socket2::SockRef"]);
    assert_eq!(find("fs::remove_file(path)?; File::open(p)"), ["fs::remove_file", "File::open"]);
    assert_eq!(find("Poll::new()?; io.try_clone_to_owned()"), ["Poll::new", "try_clone_to_owned"]);
    let allowed = "kernel::recv(1); call(\"unlink\", || fs::remove_file(path)); libc::CMSG_LEN(1); \
                   libc::pthread_self(); fs::OpenOptions::new(); use crate::sys::SockRef;";
    assert_eq!(find(allowed), [""; 0]);
}

/// The calls of system calls that do not go through `sys::kernel`.
fn bypasses(tokens: TokenStream, is_sys: bool, found: &mut Vec<String>) {
    // The two words before, as in `module::name` and `.name`.
    let mut before: [String; 4] = Default::default();
    let mut rest = tokens.into_iter().peekable();
    while let Some(token) = rest.next() {
        let is_called = matches!(rest.peek(), Some(TokenTree::Group(group))
            if group.delimiter() == Delimiter::Parenthesis);
        let text = match &token {
            TokenTree::Group(group) => {
                let is_failpoint =
                    before[3] == "call" && group.delimiter() == Delimiter::Parenthesis;
                let is_import = before[1] == "socket2" && before[3] == ":";
                if is_import && contains(group.stream(), &|t| t.to_string() == "SockRef") {
                    found.push("socket2::SockRef".to_owned());
                }
                if !is_failpoint {
                    bypasses(group.stream(), is_sys, found);
                }
                String::new()
            }
            token => token.to_string(),
        };
        let of = (before[2] == ":" && before[3] == ":").then(|| before[1].clone());
        let is_function = text.starts_with(|c: char| c.is_ascii_lowercase() || c == '_');
        if let (Some(of), true) = (&of, is_function && is_called) {
            let is_listed = |(name, _): &(&str, &str)| match *name {
                "m" => ["mmap", "madvise", "munmap"].contains(&&*text),
                "sig" | "pthread_" | "if_" => text.starts_with(name),
                name => text == name,
            };
            let is_other = BY_OTHERS.contains(&(&**of, &*text))
                || ((of == "fs" || of == "File") && !PURE_FS.contains(&&*text) && of != &text)
                    && !(of == "File" && text == "from");
            let is_libc = of == "libc"
                && !(is_sys && NO_FAILPOINT.iter().any(is_listed))
                && !NO_SYSTEM_CALL.contains(&&*text);
            if is_libc || is_other {
                found.push(format!("{of}::{text}"));
            }
        }
        if of.as_deref() == Some("socket2") && text == "SockRef" {
            found.push("socket2::SockRef".to_owned());
        }
        if before[3] == "." && is_called && METHODS_BY_OTHERS.contains(&&*text) {
            found.push(text.clone());
        }
        before.rotate_left(1);
        before[3] = text;
    }
}

/// The names of the functions and methods that are called by `.name(` and `::name(`.
fn calls(tokens: TokenStream, found: &mut BTreeSet<String>) {
    let mut before = [' ', ' '];
    let mut name = None;
    for token in tokens {
        let mut mark = ' ';
        match token {
            TokenTree::Group(group) => {
                if group.delimiter() == Delimiter::Parenthesis {
                    found.extend(name.take());
                }
                calls(group.stream(), found);
                name = None;
            }
            TokenTree::Ident(ident) if before[1] == '.' || before == [':', ':'] => {
                name = Some(ident.to_string());
            }
            TokenTree::Punct(punct) => {
                mark = punct.as_char();
                name = None;
            }
            _ => name = None,
        }
        before = [before[1], mark];
    }
}

/// The paths of this crate that a module names.
fn names(module: &Module, modules: &[Module]) -> BTreeSet<Name> {
    let mut found = BTreeSet::new();
    let mut reader = Reader { modules, found: &mut found };
    reader.read(module.tokens.clone(), &module.path);
    found
}

struct Reader<'a> {
    modules: &'a [Module],
    found: &'a mut BTreeSet<Name>,
}

type Tokens = Peekable<token_stream::IntoIter>;

impl Reader<'_> {
    /// `path` is the module that the tokens are in.
    fn read(&mut self, tokens: TokenStream, path: &[String]) {
        let mut rest = tokens.into_iter().peekable();
        let mut before = [String::new(), String::new()];
        while let Some(token) = rest.next() {
            let text = match &token {
                TokenTree::Group(_) => String::new(),
                token => token.to_string(),
            };
            match token {
                // The path of `pub(in path)` is no use.
                TokenTree::Group(_) if before[1] == "pub" => {}
                TokenTree::Group(group) if before[0] == "mod" => {
                    let inner: Vec<_> = path.iter().chain([&before[1]]).cloned().collect();
                    self.read(group.stream(), &inner);
                }
                TokenTree::Group(group) => self.read(group.stream(), path),
                // The later parts of a path do not start one.
                TokenTree::Ident(_) if before[1] == ":" && before[0] == ":" => {}
                TokenTree::Ident(ident) => {
                    if let Some(start) = self.start(&ident.to_string(), path) {
                        self.path(start, &mut rest);
                    }
                }
                _ => {}
            }
            before = [std::mem::take(&mut before[1]), text];
        }
    }

    /// The module at which a path begins.
    fn start(&self, first: &str, path: &[String]) -> Option<Vec<String>> {
        match first {
            "crate" => Some(Vec::new()),
            "self" => Some(path.to_vec()),
            "super" => Some(path.split_last()?.1.to_vec()),
            _ => {
                let child: Vec<_> = path.iter().map(String::as_str).chain([first]).collect();
                let is_child = self.modules.iter().any(|module| module.path == child);
                is_child.then(|| child.into_iter().map(str::to_owned).collect())
            }
        }
    }

    /// Reads the path that follows its first part, with everything in its braces.
    fn path(&mut self, mut name: Vec<String>, rest: &mut Tokens) {
        while is_path_separator(rest) {
            match rest.next() {
                Some(TokenTree::Ident(ident)) if ident == "super" => {
                    name.pop();
                }
                Some(TokenTree::Ident(ident)) if ident == "self" => {}
                Some(TokenTree::Ident(ident)) => name.push(ident.to_string()),
                Some(TokenTree::Group(group)) => {
                    let mut inside = group.stream().into_iter().peekable();
                    while let Some(token) = inside.next() {
                        match token {
                            TokenTree::Ident(ident) if ident == "self" => {
                                self.found.insert(Name(name.clone()));
                            }
                            TokenTree::Ident(ident) if ident == "as" => {
                                inside.next();
                            }
                            TokenTree::Ident(ident) => {
                                let name = name.iter().cloned().chain([ident.to_string()]);
                                self.path(name.collect(), &mut inside);
                            }
                            _ => {}
                        }
                    }
                    return;
                }
                // A glob, or generic arguments.
                _ => break,
            }
        }
        self.found.insert(Name(name));
    }
}

/// Whether `::` follows, which is then read.
fn is_path_separator(rest: &mut Tokens) -> bool {
    let mut ahead = rest.clone();
    let mut colon = || matches!(ahead.next(), Some(TokenTree::Punct(p)) if p.as_char() == ':');
    if !(colon() && colon()) {
        return false;
    }
    rest.next();
    rest.next();
    true
}
