//! Network namespaces for tests.
//!
//! A test calls [`in_namespace`] with its own name (see [`test_name!`]) and a body. The body runs in a new
//! process with its own network and mount namespaces. Changes to interfaces, routes and files under
//! /etc disappear with that process. The process has a time limit and is killed when the test that
//! started it ends. A [`Network`] is a further namespace of that process. A [`Route`] joins two
//! networks by a router that drops, forgets or rejects packets.
//!
//! If namespaces are not available, the test prints `skipped: reason`; with CI=true it fails. A test
//! reports what it measured by [`row`]; `cargo xtask netns` makes a table of the rows.

use std::fmt::Display;
use std::panic::Location;
use std::path::Path;
use std::time::Duration;

use super::process;
use super::timing::undisturbed;

mod network;
mod route;

pub(super) use network::tool;
pub use network::{
    HOLE, HOLE6, Network, add_address, blackhole, ip, join, leave_network, name_server, names, nft,
    replace_file, silent_resolver, sysctl,
};
pub use route::{Ip, Route};

/// Runs `body` in a process with its own network and mount namespaces, in which the loopback
/// interface is up. Most bodies measure times, so a failure of a process that was delayed is repeated
/// in a new process.
pub fn in_namespace(test: &str, limit: Duration, body: impl FnOnce()) {
    if process::is_inside(test) {
        return process::isolated(test, limit, unshare, || {
            ip("link set lo up");
            body();
        });
    }
    undisturbed(|| process::isolated(test, limit, unshare, || ()));
}

/// The command that enters new namespaces: as root, else as an ordinary user.
fn unshare() -> Result<Vec<&'static str>, String> {
    let mut last = String::new();
    for words in [vec!["unshare", "-n", "-m"], vec!["unshare", "-U", "-r", "-n", "-m"]] {
        let tried = tool(words[0]).args(&words[1..]).args(["ip", "link"]).output();
        match tried {
            Ok(output) if output.status.success() => return Ok(words),
            Ok(output) => last = String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            Err(e) => last = format!("unshare: {e}"),
        }
    }
    Err(format!("no network namespaces: {last}"))
}

/// Prints one line of the table of `cargo xtask netns`: the case, the requested limit, the measured
/// value, and the value of the control case. The first column is the file of the caller.
#[track_caller]
pub fn row(name: &str, requested: &str, measured: impl Display, control: &str) {
    let columns = [name, requested, &measured.to_string(), control];
    assert!(columns.iter().all(|c| !c.contains(['|', '\n'])), "no column may contain {columns:?}");
    let file = Path::new(Location::caller().file()).file_stem().unwrap();
    println!("netns-row: {} | {}", file.to_string_lossy(), columns.join(" | "));
}
