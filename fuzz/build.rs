//! Generates a call of each C function for the fuzz target `c_api`, from the headers in include/.
//!
//! The type and the name of a parameter determine how the target chooses its argument. A parameter
//! that this program does not know fails the build.

use std::fmt::Write;
use std::path::Path;
use std::{env, fs};

#[allow(dead_code)] // The tests use the other functions of the module.
#[path = "../tests/support/header.rs"]
mod header;

/// Functions that are not called, with the reason.
const EXCLUDED: [(&str, &str); 3] = [
    ("keepsock_activation_clear_env", "changes the environment, which other threads may read"),
    ("keepsock_error_print", "writes to the standard error output, where libFuzzer reports"),
    ("keepsock_handover_start", "starts a program"),
];

/// The objects of the C API, in the order of `Kind` in the target.
const KINDS: [&str; 15] = [
    "error",
    "cancel_token",
    "options",
    "client",
    "server",
    "serve_options",
    "service",
    "reconnect",
    "pending_connect",
    "pending_lookup",
    "datagram",
    "datagram_service",
    "activation",
    "capture",
    "handshake",
];

fn main() {
    let include = Path::new(env!("CARGO_MANIFEST_DIR")).join("../include");
    println!("cargo:rerun-if-changed=../include");
    println!("cargo:rerun-if-changed=../tests/support/header.rs");
    println!("cargo:rerun-if-changed=build.rs");
    let read = |path: &str| fs::read_to_string(include.join(path)).unwrap();
    let main = read("keepsock.h");
    let included = main.lines().filter_map(|line| line.strip_prefix("#include \"keepsock/"));
    let parts = included.map(|rest| read(&format!("keepsock/{}", rest.trim_end_matches('"'))));
    let text: String = [main.clone()].into_iter().chain(parts).collect();
    let items = header::items(&text);
    let statuses = header::statuses(&items);

    let (mut externs, mut calls, mut table) = (String::new(), String::new(), String::new());
    let (mut count, mut points) = (0, Vec::new());
    for item in items.iter().filter(|item| item.is_function()) {
        let name = item.name();
        if EXCLUDED.iter().any(|(excluded, _)| *excluded == name) {
            continue;
        }
        let function = Function::parse(&item.text, name);
        function.write(&mut externs, &mut calls);
        let listed: Vec<_> = statuses[name].iter().map(|status| status.to_string()).collect();
        writeln!(table, "    (\"{name}\", call_{name}, &[{}]),", listed.join(", ")).unwrap();
        points.extend((0..POINTS).map(|n| (point(&format!("{name}#{n}")), count)));
        count += 1;
    }
    points.sort_unstable();
    assert!(count > 250, "{count} functions in the headers");
    let code = format!(
        "unsafe extern \"C\" {{\n{externs}}}\n{calls}\n\
         const FUNCTIONS: [(&str, fn(&mut Call), &[i32]); {count}] = [\n{table}];\n\
         const POINTS: [(u16, usize); {}] = {points:?};\n",
        points.len()
    );
    let out = env::var("OUT_DIR").unwrap();
    fs::write(Path::new(&out).join("calls.rs"), code).unwrap();
}

/// The number of points of each function.
const POINTS: usize = 4;

/// A point for a name, from its hash (FNV-1a). The target calls the function with the next point, so
/// most inputs keep their meaning when functions are added.
fn point(name: &str) -> u16 {
    let hash = name
        .bytes()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    (hash ^ hash >> 16) as u16
}

struct Function<'a> {
    name: &'a str,
    /// The type of the result in Rust, and whether it is a status.
    result: &'static str,
    is_status: bool,
    parameters: Vec<(String, &'a str)>,
}

impl<'a> Function<'a> {
    fn parse(text: &'a str, name: &'a str) -> Function<'a> {
        let (before, rest) = text.split_once('(').unwrap();
        let list = rest.rsplit_once(')').unwrap().0;
        let has_error = list.contains("keepsock_error **error");
        let result = match before.trim_end_matches(name).trim() {
            "void" => "()",
            "int32_t" => "i32",
            "size_t" => "usize",
            "uint16_t" => "u16",
            "bool" => "bool",
            "const char *" => "*const c_char",
            "void *" => "*mut c_void",
            other => panic!("{name}: unknown result {other:?}"),
        };
        let is_status = result == "i32" && (has_error || name == "keepsock_error_attempt");
        let parameters = list.split(',').map(str::trim).filter(|p| *p != "void");
        let parameters = parameters
            .map(|parameter| {
                let own = header::last_name(parameter);
                let of = parameter[..parameter.len() - own.len()].trim().replace("struct ", "");
                (of, own)
            })
            .collect();
        Function { name, result, is_status, parameters }
    }

    fn write(&self, externs: &mut String, calls: &mut String) {
        let (mut declared, mut arguments) = (Vec::new(), String::new());
        for (number, (of, own)) in self.parameters.iter().enumerate() {
            let (of, value) = self.argument(of, own);
            declared.push(format!("a{number}: {of}"));
            writeln!(arguments, "    let a{number} = c.{value};").unwrap();
        }
        let name = self.name;
        let names: Vec<_> = (0..self.parameters.len()).map(|n| format!("a{n}")).collect();
        writeln!(externs, "    fn {name}({}) -> {};", declared.join(", "), self.result).unwrap();
        let end = match self.result {
            "i32" if self.is_status => "status(result)",
            "*const c_char" => "text(result)",
            _ => "ended()",
        };
        let free = if self.is_free() { "    if !c.is_alone() { return; }\n" } else { "" };
        writeln!(
            calls,
            "fn call_{name}(c: &mut Call) {{\n{arguments}{free}    \
             // SAFETY: the arguments are what the header permits.\n    \
             let result = unsafe {{ {name}({}) }};\n    let _ = result;\n    c.{end};\n}}",
            names.join(", ")
        )
        .unwrap();
    }

    fn is_free(&self) -> bool {
        self.name.ends_with("_free")
    }

    /// The type of a parameter in Rust, and the method that chooses its argument.
    fn argument(&self, of: &str, own: &str) -> (&'static str, String) {
        const POINTER: &str = "*mut c_void";
        let kind = |text: &str| {
            let name = text.strip_prefix("keepsock_")?;
            KINDS.iter().position(|kind| *kind == name)
        };
        let plain = of.trim_start_matches("const ").trim_end_matches('*').trim();
        let stars = of.matches('*').count();
        let name = self.name;
        if of == "keepsock_error **" {
            return (POINTER, "error()".to_owned());
        }
        if let Some(kind) = kind(plain) {
            return match stars {
                1 if self.is_free() => (POINTER, format!("taken({kind})")),
                1 if plain == "keepsock_options" => (POINTER, format!("options({:?})", name)),
                1 => (POINTER, format!("handle({kind})")),
                _ if name == "keepsock_service_reconnect" => (POINTER, format!("moved({kind})")),
                _ => (POINTER, format!("created({kind})")),
            };
        }
        let method = match (of, own) {
            ("const char *", "endpoint") => "endpoint()",
            ("const char *", "host") => "host()",
            ("const char *", "group") => "group_name()",
            ("const char *", "interface_name") => "interface()",
            ("const char *", "network") => "network()",
            ("const char *", "name" | "text" | "prefix") => "name()",
            ("const char *const *", "endpoints") => "endpoints()",
            ("char *", "buf") | ("void *", "buf") => "room()",
            ("const void *", "buf") => "bytes()",
            ("const keepsock_address *", "group" | "source") if name.contains("multicast") => {
                "multicast()"
            }
            ("const keepsock_address *", _) => "address()",
            ("const keepsock_buffer *", _) => "buffers()",
            ("const keepsock_slice *", _) => "slices()",
            ("const keepsock_callbacks *", _) => "callbacks()",
            ("const keepsock_datagram_info *", _) => "info()",
            ("const keepsock_fd *", _) => "passed_fds()",
            ("keepsock_fd *", "fds") => "received_fds()",
            ("keepsock_fd *", _) if name.ends_with("release_fd") => "released_fd()",
            ("keepsock_fd *", _) => "number_out()",
            ("const keepsock_five_tuple *", _) => "five_tuple()",
            ("const keepsock_framing *", _) => "framing()",
            ("const keepsock_send_item *", _) => "send_items()",
            ("keepsock_recv_item *", _) => "recv_items()",
            ("const uint32_t *", "cpus") => "cpus()",
            ("keepsock_address *", "addresses") => "addresses()",
            ("keepsock_address *", "address") => "structure_out::<keepsock_address>()",
            ("keepsock_conn *", "conn") => "conn_out()",
            ("keepsock_keepalive *", "out") => "sized_out::<keepsock_keepalive>()",
            ("keepsock_attempt *", "out") => "sized_out::<keepsock_attempt>()",
            ("keepsock_five_tuple *", "out") => "sized_out::<keepsock_five_tuple>()",
            ("keepsock_credentials *", "out") => "sized_out::<keepsock_credentials>()",
            ("keepsock_connection_stats *", "out") => "sized_out::<keepsock_connection_stats>()",
            ("keepsock_datagram_error *", "out") => "sized_out::<keepsock_datagram_error>()",
            ("keepsock_datagram_info *", "out") => "sized_out::<keepsock_datagram_info>()",
            ("keepsock_datagram_stats *", "out") => "sized_out::<keepsock_datagram_stats>()",
            ("keepsock_segment *", "out") => "sized_out::<keepsock_segment>()",
            ("keepsock_server_stats *", "out") => "sized_out::<keepsock_server_stats>()",
            ("keepsock_service_stats *", "out") => "sized_out::<keepsock_service_stats>()",
            (
                "int32_t *" | "int64_t *" | "size_t *" | "uint32_t *" | "uint64_t *" | "bool *",
                _,
            ) => "number_out()",
            ("void *", "user" | "conn_user") => "user()",
            ("keepsock_conn_callback", _) => "conn_callback()",
            ("keepsock_datagram_handler", _) => "datagram_handler()",
            ("keepsock_handler", _) => "handler()",
            ("keepsock_log_callback", _) => "log_callback()",
            ("keepsock_on_retry", _) => "on_retry()",
            ("keepsock_on_timeout", _) => "on_timeout()",
            ("keepsock_on_watch", _) => "on_watch()",
            ("keepsock_service_callback", _) => "service_callback()",
            ("keepsock_timer_callback", _) => "timer_callback()",
            _ => return self.number(of, own),
        };
        (POINTER, method.to_owned())
    }

    fn number(&self, of: &str, own: &str) -> (&'static str, String) {
        let name = self.name;
        let (of, method) = match (of, own) {
            ("keepsock_conn", _) => ("keepsock_conn", "conn()"),
            ("keepsock_fd", _) if name.ends_with("from_fd") => ("i32", "adopted_fd()"),
            ("keepsock_fd", _) => ("i32", "file()"),
            ("size_t", "cap" | "len" | "count" | "fds_count" | "fds_cap") => ("usize", "length()"),
            ("size_t", "size") => ("usize", "size()"),
            ("size_t", _) => ("usize", "number() as usize"),
            ("bool", _) => ("bool", "bit()"),
            ("uint16_t", "port") => ("u16", "port()"),
            ("uint8_t", _) => ("u8", "number() as u8"),
            ("uint32_t", "threads") => ("u32", "threads()"),
            ("uint32_t", _) => ("u32", "number() as u32"),
            ("uint64_t", _) => ("u64", "number()"),
            ("int32_t", "level") if name.contains("raw_sockopt") => ("i32", "raw_level()"),
            ("int32_t", "name") => ("i32", "raw_name()"),
            ("int32_t", "option") => ("i32", "small()"),
            ("int32_t", _) => ("i32", "small()"),
            ("int64_t", "timeout_ms") if waits(name) => ("i64", "wait()"),
            ("int64_t", "first_ms" | "longest_ms") => ("i64", "wait()"),
            ("int64_t", _) => ("i64", "number() as i64"),
            (other, own) => panic!("{name}: no argument for {other:?} {own}"),
        };
        (of, method.to_owned())
    }
}

/// Whether the time limits how long a call, or a later call on the object, may wait.
fn waits(name: &str) -> bool {
    let liveness = ["dead_after", "heartbeat", "idle_timeout", "first_byte", "middlebox", "timer"];
    !liveness.iter().any(|word| name.contains(word))
}
