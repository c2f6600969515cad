//! The kernel's own table of TCP connections, where there is one to read (Linux).

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

pub struct Connection {
    pub local: SocketAddr,
    pub remote: SocketAddr,
    pub inode: u64,
    /// Time until the next keepalive probe.
    pub keepalive_timer: Option<Duration>,
}

/// The kind of timer that the table gives as 2: keepalive.
const KEEPALIVE: &str = "02";

/// The table's unit of time, on every architecture keepsock is run on.
const TICKS_PER_SECOND: f64 = 100.0;

/// The IPv4 connections from or to a port; none where there is no such table.
pub fn connections(port: u16) -> Vec<Connection> {
    // The table may hold tens of thousands of lines: few are looked at closely.
    let mark = format!(":{port:04X} ");
    let table = fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    table.lines().filter(|line| line.contains(&mark)).filter_map(parse).collect()
}

/// The sockets that a process has open.
pub fn inodes_of(pid: u32) -> Vec<u64> {
    fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let link = fs::read_link(entry.path()).ok()?;
            link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
        })
        .collect()
}

/// `sl local remote state queues timer:when retransmits uid timeout inode ...`
fn parse(line: &str) -> Option<Connection> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (timer, when) = fields.get(5)?.split_once(':')?;
    let ticks = u32::from_str_radix(when, 16).ok()?;
    Some(Connection {
        local: address(fields.get(1)?)?,
        remote: address(fields.get(2)?)?,
        inode: fields.get(9)?.parse().ok()?,
        keepalive_timer: (timer == KEEPALIVE)
            .then(|| Duration::from_secs_f64(f64::from(ticks) / TICKS_PER_SECOND)),
    })
}

/// `0100007F:1F90`: the address as the machine's own integer, the port as a number.
fn address(text: &str) -> Option<SocketAddr> {
    let (host, port) = text.split_once(':')?;
    let host = u32::from_str_radix(host, 16).ok()?.to_ne_bytes();
    Some((Ipv4Addr::from(host), u16::from_str_radix(port, 16).ok()?).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn a_line_of_the_table_is_understood() {
        let line = "   1: 0100007F:1F90 0100007F:D431 01 00000000:00000000 02:00001194 00000000 \
                    0 0 4711 2 0000000000000000 20 4 0 10 -1";
        let connection = parse(line).unwrap();
        assert_eq!(connection.local.to_string(), "127.0.0.1:8080");
        assert_eq!(connection.remote.port(), 0xd431);
        assert_eq!(connection.inode, 4711);
        assert_eq!(connection.keepalive_timer, Some(Duration::from_secs(45)));
    }
}
