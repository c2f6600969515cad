//! The cost of idle connections: memory, and wake-ups of the server.

use std::fs;
use std::process::Command;
use std::thread;
use std::time::Duration;

use super::programs::{Held, Programs, Server, Work};
use crate::run::read_file;

/// The time after the last answer until the server waits again.
const SETTLE: Duration = Duration::from_millis(300);
/// The time for which wake-ups are counted.
const WATCH: Duration = Duration::from_secs(3);

pub struct Idle {
    /// User memory for one connection.
    pub bytes: f64,
    /// Wake-ups of the whole server, with twice the number of connections.
    pub wake_ups: f64,
}

/// Holds N and then 2N connections. The difference does not include the memory of the server itself.
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

/// The private memory that the process has written, in bytes. The size of the heap would omit stacks,
/// static tables and the overhead of malloc. The kernel counts whole pages. With thousands of
/// connections the error is less than a byte for each, and equal in every run.
fn private_dirty(pid: u32) -> Result<u64, String> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))
        .map_err(|e| format!("smaps_rollup: {e}"))?;
    let kilobytes = field(&rollup, "Private_Dirty:").ok_or("smaps_rollup: no Private_Dirty")?;
    Ok(kilobytes * 1024)
}

/// The number of wake-ups of all threads of the server while its connections are idle.
fn wake_ups(pid: u32) -> Result<u64, String> {
    let before = switches(pid)?;
    // The server has slept between the messages of its clients. A count of zero is a wrong reading.
    if before == 0 {
        return Err("the server made no context switch while its clients sent messages".to_owned());
    }
    thread::sleep(WATCH);
    Ok(switches(pid)?.saturating_sub(before))
}

/// The number of times that the threads have gone to sleep. A thread that wakes up goes to sleep again.
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
    fn field_matches_the_whole_name() {
        let status = "nonvoluntary_ctxt_switches:\t7\nvoluntary_ctxt_switches:\t3\n";
        assert_eq!(field(status, "voluntary_ctxt_switches:"), Some(3));
        assert_eq!(field("Private_Dirty:       272 kB\n", "Private_Dirty:"), Some(272));
        assert_eq!(field("", "Private_Dirty:"), None);
    }
}
