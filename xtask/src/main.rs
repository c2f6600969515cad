//! The workspace's task runner, started as `cargo xtask <command>`.
//!
//! It has no dependencies because it is the first program that a fresh machine builds.

mod apt;
mod cmake;
mod counts;
mod cross;

mod abi_check;
mod coverage;
mod demo;
mod dependencies;
mod faults;
mod features;
mod fuzz;
mod install_check;
mod links;
mod models;
mod msrv;
mod mutants;
mod netns;
mod packages;
mod platforms;
mod portable;
mod reference;
mod run;
mod sanitize;
mod servers;
mod soak;
mod sockets;
mod steps;
mod suite;
mod tools;
mod wine;

use std::process::ExitCode;

const HELP: &str = "\
cargo xtask <command>

  test            format, lints, Rust tests, C examples
  test --full     the same, then every other check: other platforms, oldest supported
                  Rust, valgrind, netns tests, fuzz targets, faults, the budgets of `counts`, the
                  shared library, documentation, installed files, demo
  netns           runs all tests in network namespaces, including the long ones: networks that drop,
                  delay and forget packets. Prints each measurement next to its control case
  wine            runs the library for Windows under Wine: unit tests, tests through both APIs, C
                  examples. Installs Wine into target/ first (root, debootstrap)
  platforms [ROW ...]
                  runs the unit tests, `it` and C programs for musl, i686, aarch64, s390x, armv7 and
                  windows, with qemu-user or Wine where it is needed, and writes the tables of
                  docs/platforms.md
  links           links the library and C examples for macOS and FreeBSD, with zig
  portable        runs the unit tests and `it` with the code that other Unix systems use
  faults          makes each system call of the library fail, transfer one byte, or wait, and prints
                  the matrix: sites, calls, faults, results, and the sites that no scene reaches
  faults --long   the same, ten times each
  sanitize        multi-threaded tests under AddressSanitizer and ThreadSanitizer, C examples under
                  AddressSanitizer and UndefinedBehaviorSanitizer, unit tests of state machines and
                  parsers under Miri
  sanitize --all  the same, with every Rust test under AddressSanitizer and ThreadSanitizer
  fuzz [--seconds N] [target]
                  runs the fuzz targets with AddressSanitizer, each for N seconds (60), or one of them
  soak            a million connections and a hundred million messages, ordinary and hostile. Fails if
                  a message, callback, descriptor or thread is lost, or memory grows. Options:
                  --seed N, --connections N, --messages N, --seconds N. Writes a report with plots
                  to target/soak/
  models          runs the models of protocols between threads with every order of the operations
  models --mutants
                  the same with each of a list of defects, which the models must find
  coverage        runs the tests of both APIs and the fault matrix instrumented, and prints the covered
                  lines and regions of each module. Fails if a function with uncovered lines is not
                  explained in tests/uncovered.txt
  features        lints every combination of the Cargo features, and runs all tests with none and with
                  each alone. The full run leaves out the tests through both APIs with one feature
  mutants [machine ...]
                  changes one expression of a state machine at a time (cargo-mutants), and fails if its
                  unit tests do not find the change, except for those in xtask/mutants.txt
  dependencies    checks the license and source of each dependency, and the table in SECURITY.md
  packages        builds the Debian packages, checks them with lintian, and installs them in an empty
                  Debian, in which a C project builds with pkg-config, CMake and Meson
  demo            runs a push server and its clients, and explains each line of output
  reference       writes the C reference as HTML to target/c-reference, with Doxygen. A warning is an
                  error: an item of the headers without a comment, a name that does not exist
  counts          prints system calls, instructions and memory of keepsock, plain C, and other
                  libraries as a table
  counts --gate   the same, and fails if a budget is exceeded
  ratios          prints processor time of a server and of datagrams as ratios to plain C,
                  measured in rounds; never fails because of a ratio

xtask installs missing tools and libraries (cmake, valgrind, strace, libuv, ...): into target/
with pip where possible, else as Debian packages with apt-get, only if it runs as root. It
prints each apt-get command and the packages before it runs the command. Missing servers of
the C examples (redis-server, mosquitto) are unpacked below target/ and not installed.
KEEPSOCK_NO_INSTALL=1 prevents every installation: xtask prints what to install instead. With
CI=true a skipped step is a failure.
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    type Action<'a> = Box<dyn Fn(&run::Workspace) -> Result<bool, String> + 'a>;
    let command: Action = match words.as_slice() {
        ["test"] => Box::new(|ws| Ok(suite::test(ws, false))),
        ["test", "--full"] => Box::new(|ws| Ok(suite::test(ws, true))),
        ["wine"] => Box::new(wine::wine),
        ["platforms", names @ ..] => Box::new(move |ws| platforms::platforms(ws, names)),
        ["netns"] => Box::new(netns::netns),
        ["links"] => Box::new(|ws| {
            println!("{}", links::check(ws)?);
            Ok(true)
        }),
        ["dependencies"] => Box::new(|ws| {
            println!("{}", dependencies::check(ws)?);
            Ok(true)
        }),
        ["packages"] => Box::new(packages::packages),
        ["coverage"] => Box::new(coverage::coverage),
        ["features"] => Box::new(features::features),
        ["demo"] => Box::new(demo::demo),
        ["counts"] => Box::new(|ws| Ok(counts::counts(ws, false)?)),
        ["counts", "--gate"] => Box::new(|ws| Ok(counts::counts(ws, true)?)),
        ["reference"] => Box::new(|ws| {
            println!("{}", reference::check(ws)?);
            Ok(true)
        }),
        ["portable"] => Box::new(portable::portable),
        ["faults"] => Box::new(|ws| faults::faults(ws, false)),
        ["faults", "--long"] => Box::new(|ws| faults::faults(ws, true)),
        ["soak", ..] => Box::new(|ws| soak::soak(ws, &arguments[1..])),
        ["models"] => Box::new(models::models),
        ["models", "--mutants"] => Box::new(models::mutants),
        ["mutants", names @ ..] => Box::new(move |ws| mutants::mutants(ws, names)),
        ["sanitize"] => Box::new(|ws| Ok(sanitize::sanitize(ws, false))),
        ["sanitize", "--all"] => Box::new(|ws| Ok(sanitize::sanitize(ws, true))),
        ["ratios"] => Box::new(|ws| Ok(counts::ratios(ws)?)),
        ["fuzz", options @ ..] => match fuzz::Run::parse(options) {
            Ok(run) => Box::new(move |ws| fuzz::fuzz(ws, &run)),
            Err(message) => {
                eprintln!("xtask: {message}");
                return ExitCode::from(2);
            }
        },
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
