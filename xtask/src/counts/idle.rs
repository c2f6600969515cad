//! What connections cost on which nothing happens: memory, and waking up for them.

use std::fs;
use std::process::Command;
use std::thread;
use std::time::Duration;

use super::programs::{Held, Programs, Server, Work};
use crate::run::read_file;

/// For the server to go back to its wait after the last answer.
const SETTLE: Duration = Duration::from_millis(300);
/// How long wake-ups are counted.
const WATCH: Duration = Duration::from_secs(3);

pub struct Idle {
    /// User memory for one connection.
    pub bytes: f64,
    /// Of the whole server, with twice the connections.
    pub wake_ups: f64,
}

/// Holds N and then 2N connections: what a server needs without any cancels out.
pub fn idle(programs: &Programs, program: &str, work: Work) -> Result<Idle, String> {
    let n = work.repeats();
    let held = |connections, look: fn(u32) -> Result<(u64, u64), String>| {
        let mut command = Command::new(programs.file(program));
        command.args(Programs::server_arguments(program, work, connections));
        let server = Server::start(&mut command)?;
        let mut clients = Command::new(programs.file("hold"));
        let looked = Held::open(&mut clients, server.port, connections).and_then(|held| {
            thread::sleep(SETTLE);
            let looked = look(server.pid())?;
            held.close()?;
            Ok(looked)
        });
        server.finish(looked)
    };
    let look = || -> Result<Idle, String> {
        let (fewer, _) = held(n, |pid| Ok((private_dirty(pid)?, 0)))?;
        let (more, wake_ups) = held(2 * n, |pid| Ok((private_dirty(pid)?, wake_ups(pid)?)))?;
        Ok(Idle { bytes: (more as f64 - fewer as f64) / n as f64, wake_ups: wake_ups as f64 })
    };
    look().map_err(|e| format!("{program}, {}: {e}", work.name()))
}

/// The memory that is the process's own and was written to, in bytes. Not the heap's count:
/// that lacks stacks, tables in static memory and what malloc adds itself. Whole pages, but
/// over thousands of connections these are less than a byte for each, and they repeat.
fn private_dirty(pid: u32) -> Result<u64, String> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))
        .map_err(|e| format!("smaps_rollup: {e}"))?;
    let kilobytes = field(&rollup, "Private_Dirty:").ok_or("smaps_rollup: no Private_Dirty")?;
    Ok(kilobytes * 1024)
}

/// How often any thread of the server wakes up while nothing happens.
fn wake_ups(pid: u32) -> Result<u64, String> {
    let before = switches(pid)?;
    // It has slept between its clients' messages. Without that it is not what was read.
    if before == 0 {
        return Err("no context switch was seen while it worked".to_owned());
    }
    thread::sleep(WATCH);
    Ok(switches(pid)?.saturating_sub(before))
}

/// How often its threads have gone to sleep, which a thread that wakes up does again.
fn switches(pid: u32) -> Result<u64, String> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).map_err(|e| format!("threads: {e}"))?;
    let mut sum = 0;
    for thread in threads {
        let path = thread.map_err(|e| format!("threads: {e}"))?.path().join("status");
        sum += field(&read_file(&path)?, "voluntary_ctxt_switches:")
            .ok_or("status: no voluntary_ctxt_switches")?;
    }
    Ok(sum)
}

/// The number after a name at the beginning of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let status = "nonvoluntary_ctxt_switches:\t7\nvoluntary_ctxt_switches:\t3\n";
        assert_eq!(field(status, "voluntary_ctxt_switches:"), Some(3));
        assert_eq!(field("Private_Dirty:       272 kB\n", "Private_Dirty:"), Some(272));
        assert_eq!(field("", "Private_Dirty:"), None);
    }
}
