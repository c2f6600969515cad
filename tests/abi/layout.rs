//! The layout of the structures of the headers, on every platform (A1).
//!
//! A model computes the sizes and offsets from the headers. They are written as assertions in C
//! (tests/abi/layout.c) and in Rust (src/ffi/layout.rs), which the compilers of each platform check:
//! `KEEPSOCK_BLESS=1 cargo test --all-features --test abi layout::` writes both files.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::header::{self, Item, What};

const BLESS: &str = "KEEPSOCK_BLESS=1 cargo test --all-features --test abi layout::";

/// The sizes that differ between platforms: those of a pointer, and the alignment of a 64-bit number.
struct Platform {
    pointer: usize,
    align_64: usize,
}

/// 64-bit systems; 32-bit systems; 32-bit x86 except Windows. The generated files have this order.
const PLATFORMS: [Platform; 3] = [
    Platform { pointer: 8, align_64: 8 },
    Platform { pointer: 4, align_64: 8 },
    Platform { pointer: 4, align_64: 4 },
];

/// The members of each structure, as text.
type Structures = BTreeMap<String, Vec<String>>;

fn items() -> Vec<Item> {
    header::items(&header::text())
}

fn structures(items: &[Item]) -> Structures {
    let structures = items.iter().filter(|item| matches!(item.what(), What::Struct(_)));
    let members = |item: &Item| item.members.iter().map(|member| member.text.clone()).collect();
    structures.map(|item| (item.name().to_owned(), members(item))).collect()
}

/// The place of one member.
struct Member {
    padding: usize,
    offset: usize,
}

impl Platform {
    /// The size and the alignment of a type of the header.
    fn layout(&self, structures: &Structures, of: &str) -> (usize, usize) {
        match of {
            "bool" | "char" | "int8_t" | "uint8_t" => (1, 1),
            "int16_t" | "uint16_t" => (2, 2),
            "int32_t" | "uint32_t" => (4, 4),
            "int64_t" | "uint64_t" => (8, self.align_64),
            "size_t" => (self.pointer, self.pointer),
            of if of.ends_with('*') => (self.pointer, self.pointer),
            of => {
                let (size, align, _) = self.members(structures, &structures[of]);
                (size, align)
            }
        }
    }

    /// The size and the alignment of a structure, and its members. The last entry is its end.
    fn members(&self, structures: &Structures, members: &[String]) -> (usize, usize, Vec<Member>) {
        let (mut end, mut alignment, mut places) = (0usize, 1, Vec::new());
        for member in members {
            let (declared, count) = match member.trim_end_matches(';').split_once('[') {
                Some((declared, count)) => (declared, count.trim_end_matches(']')),
                None => (member.as_str(), "1"),
            };
            let count: usize = count.parse().unwrap();
            let of = match declared.rsplit_once([' ', '*']) {
                Some((of, _)) if declared.contains('*') => format!("{of}*"),
                Some((of, _)) => of.to_owned(),
                None => panic!("{member}"),
            };
            let (size, align) = self.layout(structures, &of);
            let offset = end.next_multiple_of(align);
            places.push(Member { padding: offset - end, offset });
            end = offset + size * count;
            alignment = alignment.max(align);
        }
        let size = end.next_multiple_of(alignment);
        places.push(Member { padding: size - end, offset: size });
        (size, alignment, places)
    }
}

/// A1: the padding of a structure depends neither on the size of a pointer nor on the alignment of
/// 64-bit numbers. So a member that a later version adds is never in the padding of an earlier one on
/// one platform only.
#[test]
fn padding_of_structures_is_the_same_on_each_platform() {
    let structures = structures(&items());
    assert!(structures.len() > 15, "{structures:?}");
    for (name, members) in &structures {
        let [a, b, c] = PLATFORMS.each_ref().map(|platform| {
            let (_, _, places) = platform.members(&structures, members);
            places.iter().map(|place| place.padding).collect::<Vec<_>>()
        });
        assert!(a == b && b == c, "{name}: {a:?}, {b:?}, {c:?}");
    }
}

/// The types in a declaration whose sizes depend on the platform and not only on its pointers: `long` has
/// 32 bits on Windows, and 64 bits on other 64-bit systems.
fn varying_types(declaration: &str) -> Vec<&str> {
    const TYPES: [&str; 10] = [
        "int", "long", "short", "unsigned", "signed", "wchar_t", "time_t", "off_t", "ssize_t",
        "enum",
    ];
    let words = declaration.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| TYPES.contains(word)).collect()
}

/// A1: no type of the headers has a size that depends on the platform, except those with pointers, and
/// `keepsock_fd`, which is `int` except on Windows. The items have the type of Windows, which is `size_t`.
#[test]
fn types_of_headers_have_fixed_sizes() {
    for item in items() {
        let members = item.members.iter().map(|member| member.text.as_str());
        for text in std::iter::once(item.text.as_str()).chain(members) {
            let is_enum = matches!(item.what(), What::Enum(_)) && varying_types(text) == ["enum"];
            let wrong = if is_enum { Vec::new() } else { varying_types(text) };
            assert!(wrong.is_empty(), "{wrong:?} in {text}");
        }
    }
    assert!(!items().is_empty());
    assert_eq!(
        varying_types("int32_t keepsock_x(unsigned long a, int64_t b)"),
        ["unsigned", "long"]
    );
}

/// One value on each of the platforms.
struct Fact {
    of: String,
    member: Option<String>,
    values: [usize; 3],
    /// Rust has no type for the integers that C names by a typedef.
    in_rust: bool,
}

/// The size of each type, and the offset of each member.
fn facts(items: &[Item]) -> Vec<Fact> {
    let structures = structures(items);
    let mut facts = Vec::new();
    for item in items {
        let of = item.name().to_owned();
        let size = |values| Fact { of: of.clone(), member: None, values, in_rust: true };
        match item.what() {
            What::Macro(_) | What::Opaque(_) | What::Function(_) => {}
            // The generated files have assertions of their own for it.
            What::Typedef("keepsock_fd") => {}
            // A typedef of int32_t.
            What::Typedef(_) | What::Enum(_) => {
                facts.push(Fact { in_rust: false, ..size([4; 3]) });
            }
            What::Callback(_) => facts.push(size(PLATFORMS.each_ref().map(|p| p.pointer))),
            What::Struct(_) => {
                let places = PLATFORMS.each_ref().map(|p| p.members(&structures, &structures[&of]));
                facts.push(size(places.each_ref().map(|(size, _, _)| *size)));
                for (at, member) in item.members.iter().enumerate() {
                    let values = places.each_ref().map(|(_, _, places)| places[at].offset);
                    let member = Some(header::member_name(member).to_owned());
                    facts.push(Fact { of: of.clone(), member, values, in_rust: true });
                }
            }
        }
    }
    facts
}

/// The size of each structure, and the offset of each of its members: `8`, or `8/4/4` if the platforms
/// differ.
pub fn places(items: &[Item]) -> BTreeMap<(String, Option<String>), String> {
    let place = |Fact { of, member, values: [a, b, c], .. }| {
        let text = if a == b && b == c { a.to_string() } else { format!("{a}/{b}/{c}") };
        ((of, member), text)
    };
    facts(items).into_iter().map(place).collect()
}

fn in_c(facts: &[Fact]) -> String {
    let mut text = format!(
        "/*\n * The sizes and offsets of the headers, which a C11 compiler of any platform checks. Generated:\n * \
         {BLESS}\n */\n\
         #include <stddef.h>\n#include <stdint.h>\n\n#include \"keepsock.h\"\n\n\
         /* The values on 64-bit systems, on 32-bit systems, and on 32-bit x86 except Windows. */\n\
         #if UINTPTR_MAX > UINT32_MAX\n#define HERE(on_64, on_32, on_i386) (on_64)\n\
         #elif defined(__i386__) && !defined(_WIN32)\n#define HERE(on_64, on_32, on_i386) (on_i386)\n\
         #else\n#define HERE(on_64, on_32, on_i386) (on_32)\n#endif\n\n\
         #define SIZE(type, on_64, on_32, on_i386) \\\n    \
         _Static_assert(sizeof(type) == HERE(on_64, on_32, on_i386), \"sizeof \" #type)\n\
         #define OFFSET(type, member, on_64, on_32, on_i386) \\\n    \
         _Static_assert(offsetof(type, member) == HERE(on_64, on_32, on_i386), #type \".\" #member)\n\n\
         /* A SOCKET on Windows. */\n\
         #if defined(_WIN32)\n_Static_assert(sizeof(keepsock_fd) == sizeof(uintptr_t), \"keepsock_fd\");\n\
         #else\n_Static_assert(sizeof(keepsock_fd) == sizeof(int), \"keepsock_fd\");\n#endif\n\n"
    );
    for Fact { of, member, values: [a, b, c], .. } in facts {
        let _ = match member {
            None => writeln!(text, "SIZE({of}, {a}, {b}, {c});"),
            Some(member) => writeln!(text, "OFFSET({of}, {member}, {a}, {b}, {c});"),
        };
    }
    text
}

fn in_rust(facts: &[Fact]) -> String {
    let mut text = format!(
        "//! The sizes and offsets of the headers, which the compiler of any platform checks. Generated:\n\
         //! `{BLESS}`.\n\nuse std::mem::offset_of;\n\nuse super::*;\n\n\
         /// The value on 64-bit systems, on 32-bit systems, or on 32-bit x86 except Windows.\n\
         const fn here(on_64: usize, on_32: usize, on_i386: usize) -> usize {{\n    \
         if cfg!(target_pointer_width = \"64\") {{\n        on_64\n    \
         }} else if cfg!(all(target_arch = \"x86\", not(windows))) {{\n        on_i386\n    \
         }} else {{\n        on_32\n    }}\n}}\n\n"
    );
    text += "#[rustfmt::skip]\nconst _: () = {\n";
    for Fact { of, member, values: [a, b, c], .. } in facts.iter().filter(|fact| fact.in_rust) {
        let _ = match member {
            None => writeln!(text, "    assert!(size_of::<{of}>() == here({a}, {b}, {c}));"),
            Some(member) => {
                writeln!(text, "    assert!(offset_of!({of}, {member}) == here({a}, {b}, {c}));")
            }
        };
    }
    text + "};\n"
}

/// Compares a committed file with its generated text, or writes it.
fn compare(path: &str, generated: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    let committed = fs::read_to_string(&path).unwrap_or_default();
    if std::env::var_os("KEEPSOCK_BLESS").is_some() && committed != generated {
        return fs::write(&path, generated).unwrap();
    }
    assert!(committed == generated, "{} is out of date: {BLESS}", path.display());
}

/// A1: the committed assertions are those of the headers. The library does not compile if a layout in
/// Rust differs.
#[test]
fn layout_files_are_up_to_date() {
    let facts = facts(&items());
    assert!(facts.len() > 150, "only {}", facts.len());
    compare("tests/abi/layout.c", &in_c(&facts));
    compare("src/ffi/layout.rs", &in_rust(&facts));
}

/// A1: each structure has the asserted layout in C. `cargo xtask platforms` does the same with the C
/// compilers of other platforms.
#[test]
fn layouts_of_header_hold_in_c() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let cc = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let compile = |source: &str| {
        let mut compile = Command::new(&cc);
        compile.args(["-std=c11", "-fsyntax-only", "-I"]).arg(root.join("include"));
        compile.args(["-x", "c", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped());
        let mut compile = compile.spawn().unwrap_or_else(|e| panic!("a C compiler is needed: {e}"));
        compile.stdin.take().unwrap().write_all(source.as_bytes()).unwrap();
        let output = compile.wait_with_output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let source = fs::read_to_string(root.join("tests/abi/layout.c")).unwrap();
    let (holds, errors) = compile(&source);
    assert!(holds, "{errors}");
    // A layout that does not hold is an error.
    let (holds, errors) = compile(&format!("{source}SIZE(keepsock_slice, 1, 1, 1);\n"));
    assert!(!holds && errors.contains("keepsock_slice"), "{errors}");
}
