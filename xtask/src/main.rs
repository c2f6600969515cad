//! The workspace's task runner, started as `cargo xtask <command>`.
//!
//! No dependencies: it is the first thing a fresh machine builds.

mod cmake;
mod counts;
mod cross;
mod debian;
mod demo;
mod labs;
mod library;
mod msrv;
mod prefix;
mod run;
mod sanitize;
mod sockets;
mod steps;
mod suite;
mod tools;

use std::process::ExitCode;

const HELP: &str = "\
cargo xtask <command>

  test            format, lints, Rust tests, C examples: the fast loop
  test --full     the same, then every other check: other systems, oldest Rust,
                  valgrind, the labs, the bars of `counts`, the shared library,
                  documentation, the installed prefix
  labs            every lab, the long ones too: networks that drop, forget and delay,
                  and what was measured in them, as a table beside the controls
  sanitize        event-driven serving and datagrams under AddressSanitizer and ThreadSanitizer
  demo            a push server and its clients at work, with every line explained
  counts          system calls, instructions, memory beside plain C and others, as a table
  counts --gate   the same, and fails when a bar is exceeded
  ratios          processor time of a server, and of datagrams, beside plain C and others,
                  in turn: no gate

Tools that are missing (cmake, valgrind, strace, ...) are installed where that can be
done; else the message says what to install. With CI=true a skipped step is a failure.
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let command: fn(&run::Workspace) -> Result<bool, String> = match words.as_slice() {
        ["test"] => |ws| Ok(suite::test(ws, false)),
        ["test", "--full"] => |ws| Ok(suite::test(ws, true)),
        ["labs"] => labs::labs,
        ["demo"] => demo::demo,
        ["counts"] => |ws| Ok(counts::counts(ws, false)?),
        ["counts", "--gate"] => |ws| Ok(counts::counts(ws, true)?),
        ["sanitize"] => sanitize::sanitize,
        ["ratios"] => |ws| Ok(counts::ratios(ws)?),
        [] | ["help" | "-h" | "--help"] => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        _ => {
            eprint!("xtask: unknown command `{}`\n\n{HELP}", words.join(" "));
            return ExitCode::from(2);
        }
    };
    match run::Workspace::find().and_then(|ws| command(&ws)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(message) => {
            eprintln!("xtask: {message}");
            ExitCode::FAILURE
        }
    }
}
