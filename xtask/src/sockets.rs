//! Reads the kernel's table of TCP connections (Linux).

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

/// The number of the keepalive timer in the table.
const KEEPALIVE: &str = "02";

/// The table's unit of time, on every architecture that keepsock supports.
const TICKS_PER_SECOND: f64 = 100.0;

/// The IPv4 connections from or to a port. Without such a table the list is empty.
pub fn connections(port: u16) -> Vec<Connection> {
    // The table may have tens of thousands of lines, so only those with the port are parsed.
    let mark = format!(":{port:04X} ");
    let table = fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    table.lines().filter(|line| line.contains(&mark)).filter_map(parse).collect()
}

/// The inodes of the sockets that a process has open.
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

/// Parses `0100007F:1F90`: the address in the byte order of the machine, then the port.
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
    fn parse_reads_a_line_of_the_table() {
        let line = "   1: 0100007F:1F90 0100007F:D431 01 00000000:00000000 02:00001194 00000000 \
                    0 0 4711 2 0000000000000000 20 4 0 10 -1";
        let connection = parse(line).unwrap();
        assert_eq!(connection.local.to_string(), "127.0.0.1:8080");
        assert_eq!(connection.remote.port(), 0xd431);
        assert_eq!(connection.inode, 4711);
        assert_eq!(connection.keepalive_timer, Some(Duration::from_secs(45)));
    }
}
