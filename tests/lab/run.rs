//! Running a lab in a process of its own.

use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::network::tool;
use super::{ip, ms};

/// Set in the process that a lab starts: the name of the test.
const INSIDE: &str = "KEEPSOCK_LAB";
const DONE: &str = "lab: done";
const SKIP: &str = "lab: skip: ";

/// Runs `body` in a process with a network and mount namespace of its own, in
/// which the loopback interface is up.
pub fn in_namespace(test: &str, limit: Duration, body: impl FnOnce()) {
    let unshare = match std::env::var_os(INSIDE) {
        Some(_) => vec![],
        None => match unshare() {
            Ok(words) => words,
            Err(reason) => return skip(test, &reason),
        },
    };
    run(test, limit, &unshare, || {
        ip("link set lo up");
        body();
    });
}

/// Runs `body` in a process of its own, for what holds for a whole process.
pub fn in_process(test: &str, limit: Duration, body: impl FnOnce()) {
    run(test, limit, &[], body);
}

fn run(test: &str, limit: Duration, prefix: &[&str], body: impl FnOnce()) {
    if std::env::var(INSIDE).is_ok_and(|name| name == test) {
        end_with_parent(limit);
        body();
        println!("{DONE}");
        return;
    }
    let mut command = again(test, prefix);
    command.env(INSIDE, test).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let (send, output) = mpsc::channel();
    let streams: [Box<dyn Read + Send>; 2] =
        [Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap())];
    for mut stream in streams {
        let send = send.clone();
        thread::spawn(move || {
            let mut text = Vec::new();
            let _ = stream.read_to_end(&mut text);
            let _ = send.send(String::from_utf8_lossy(&text).into_owned());
        });
    }
    // Both streams end when the child does.
    let until = Instant::now() + limit;
    let mut text = String::new();
    for _ in 0..2 {
        match output.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(more) => text.push_str(&more),
            Err(_) => {
                let _ = child.kill();
                let _ = child.wait();
                // Killed, it has closed its streams; what it printed tells how far it came.
                text.extend(output.recv_timeout(ms(1000)));
                panic!("{test}: the lab was not done after {limit:?}\n{text}");
            }
        }
    }
    let status = child.wait().unwrap();
    if let Some((_, reason)) = text.split_once(SKIP) {
        return skip(test, reason.lines().next().unwrap_or(""));
    }
    assert!(status.success(), "{test}: the lab failed: {status}\n{text}");
    print!("{text}");
    assert!(text.contains(DONE), "{test}: the lab ran nothing: is the name right?\n{text}");
}

/// This test program once more, for one test.
pub(super) fn again(test: &str, prefix: &[&str]) -> Command {
    let program = std::env::current_exe().unwrap();
    let mut command = match prefix.split_first() {
        Some((first, rest)) => {
            let mut command = Command::new(first);
            command.args(rest).arg(program);
            command
        }
        None => Command::new(program),
    };
    command.args(["--exact", test, "--include-ignored", "--nocapture", "--test-threads=1"]);
    command
}

/// The process is killed when the thread that started it ends, and by an alarm
/// if that should not happen.
pub(super) fn end_with_parent(limit: Duration) {
    // SAFETY: neither call passes memory.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        libc::alarm(u32::try_from(limit.as_secs()).unwrap() + 5);
    }
}

fn skip(test: &str, reason: &str) {
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{test}: skipped: {reason}");
    println!("{test}: skipped: {reason}");
}

/// Ends the lab: this machine cannot show it.
pub(super) fn cannot(reason: &str) -> ! {
    println!("{SKIP}{reason}");
    std::process::exit(0);
}

/// The command that gives namespaces: root's way, or an ordinary user's.
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
