//! Networks of a test: interfaces, addresses, names.

// This file makes system calls that the standard library does not have.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::Write as _;
use std::net::{Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};
use std::{io, panic};

use super::super::process::cannot;
use super::super::watch::await_that;

/// Runs ip(8). If ip(8) fails, the test is skipped.
pub fn ip(words: &str) {
    run_tool(tool("ip").args(words.split_whitespace()));
}

/// Finds an administration program. The PATH of a user may lack its directory.
pub fn tool(name: &str) -> Command {
    let mut command = Command::new(name);
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin:/sbin"));
    command
}

pub(super) fn run_tool(command: &mut Command) -> String {
    match command.output() {
        Ok(output) if output.status.success() => {
            String::from_utf8_lossy(&output.stdout).into_owned()
        }
        Ok(output) => {
            let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            cannot(&format!("{command:?}: {why}"));
        }
        Err(e) => cannot(&format!("{command:?}: {e}")),
    }
}

pub fn sysctl(name: &str, value: &str) {
    let path = format!("/proc/sys/{}", name.replace('.', "/"));
    if let Err(e) = std::fs::write(&path, value) {
        cannot(&format!("{path}: {e}"));
    }
}

/// Replaces the contents of a file under /etc, for this mount namespace.
pub fn replace_file(path: &str, text: &str) {
    let dir = std::env::temp_dir();
    let name = path.replace('/', "-");
    let made = dir.join(format!("keepsock-netns-{}{name}", std::process::id()));
    std::fs::write(&made, text).unwrap();
    run_tool(tool("mount").arg("--bind").arg(&made).arg(path));
    // The mount keeps the file.
    std::fs::remove_file(&made).unwrap();
}

/// Resolves names from this hosts file only.
pub fn names(hosts: &str) {
    replace_file("/etc/nsswitch.conf", "hosts: files\n");
    replace_file("/etc/hosts", hosts);
}

/// Sends name queries to a server that never replies.
pub fn silent_resolver(options: &str) {
    blackhole();
    replace_file("/etc/nsswitch.conf", "hosts: dns\n");
    replace_file("/etc/resolv.conf", &format!("nameserver 192.0.2.53\noptions {options}\n"));
}

/// Sends name queries to a server on this host, which replies after `delay` with 127.0.0.1 and no
/// IPv6 address. It does not reply for names that begin with "hang", and does not reply about IPv6
/// for names that begin with "four".
pub fn name_server(delay: Duration, options: &str) {
    replace_file("/etc/nsswitch.conf", "hosts: dns\n");
    replace_file("/etc/resolv.conf", &format!("nameserver 127.0.0.1\noptions {options}\n"));
    let socket = UdpSocket::bind("127.0.0.1:53").unwrap();
    let reply = socket.try_clone().unwrap();
    let (send, answers) = mpsc::channel::<(Instant, Vec<u8>, SocketAddr)>();
    thread::spawn(move || {
        for (due, answer, to) in answers {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            let _ = reply.send_to(&answer, to);
        }
    });
    thread::spawn(move || {
        let mut packet = [0; 512];
        while let Ok((len, from)) = socket.recv_from(&mut packet) {
            if packet[13..len].starts_with(b"hang") {
                continue;
            }
            // RFC 1035 section 4.1: a header of 12 bytes, the name, two bytes of type.
            let name = packet[12..len].iter().position(|b| *b == 0).map_or(len, |i| 12 + i + 1);
            let is_v4 = packet.get(name..name + 2) == Some(&[0, 1]);
            if packet[13..len].starts_with(b"four") && !is_v4 {
                continue;
            }
            let mut answer = packet[..name + 4].to_vec();
            answer[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, is_v4.into(), 0, 0, 0, 0]);
            if is_v4 {
                // The name again by reference, A, IN, a minute, four bytes.
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1]);
            }
            let _ = send.send((Instant::now() + delay, answer, from));
        }
    });
}

/// An address that drops all packets. Other addresses of 192.0.2.0/24 and 2001:db8::/64 do the
/// same, and with `default route` all addresses that are not local.
pub const HOLE: &str = "192.0.2.77";
pub const HOLE6: &str = "2001:db8::77";

/// Creates the interface `hole`, which drops all packets. Without ARP the kernel sends packets
/// without an address resolution, so it detects no missing host.
pub fn blackhole() {
    ip("link add hole type veth peer name hole-end");
    ip("link set hole arp off");
    ip("link set hole up");
    ip("link set hole-end up");
    ip("addr add 192.0.2.1/24 dev hole");
    ip("-6 addr add 2001:db8::1/64 dev hole nodad");
}

/// A network namespace next to the test's own, with its loopback interface up. The kernel removes
/// it with the last descriptor and thread in it.
pub struct Network {
    /// Keeps the namespace alive, and gives access to it.
    handle: File,
}

impl Network {
    pub fn new() -> Network {
        // A thread can enter a new namespace alone (unshare(2), CLONE_NEWNET). The rest of the
        // process stays in its namespace.
        in_a_thread(|| {
            leave_network();
            ip("link set lo up");
            Network::here()
        })
    }

    /// The network of the calling thread.
    pub fn here() -> Network {
        Network { handle: File::open("/proc/thread-self/ns/net").unwrap() }
    }

    /// Calls `work` in this network. A socket, or a process that `work` starts, stays in the
    /// network where it was created.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let mut enter = self.entrance();
        in_a_thread(move || {
            enter().unwrap();
            work()
        })
    }

    /// Returns a function that moves its calling thread into this network.
    pub fn entrance(&self) -> impl FnMut() -> io::Result<()> + Send + Sync + 'static {
        let handle = self.handle.try_clone().unwrap();
        move || {
            // SAFETY: no memory is passed.
            match unsafe { libc::setns(handle.as_raw_fd(), libc::CLONE_NEWNET) } {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        }
    }

    pub fn ip(&self, words: &str) {
        self.run(|| ip(words));
    }

    /// The path for the option `netns` of ip(8).
    fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.handle.as_raw_fd())
    }
}

/// Moves this thread, and the processes that it starts, into a new network.
pub fn leave_network() {
    // SAFETY: no memory is passed.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
        cannot(&format!("unshare: {}", io::Error::last_os_error()));
    }
}

/// Returns the result of `work`, and panics if `work` panicked.
fn in_a_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| scope.spawn(work).join()).unwrap_or_else(|e| panic::resume_unwind(e))
}

/// Joins two networks by a pair of interfaces, each with a name and addresses with their prefixes.
/// A packet that is sent into one interface arrives at the other.
pub fn join(a: (&Network, &str, &[&str]), b: (&Network, &str, &[&str])) {
    a.0.ip(&format!("link add {} type veth peer name {} netns {}", a.1, b.1, b.0.path()));
    let is_v6 = |address: &&str| address.contains(':');
    let ends = [a, b];
    for (network, name, addresses) in ends {
        if addresses.iter().any(is_v6) {
            // No duplicate address detection (RFC 4862), which takes seconds.
            network.run(|| sysctl(&format!("net.ipv6.conf.{name}.accept_dad"), "0"));
        }
        network.ip(&format!("link set {name} up"));
    }
    for (network, name, addresses) in ends {
        for address in addresses {
            network.run(|| add_address(address, name));
        }
        if addresses.iter().any(is_v6) {
            // The kernel adds the link-local address itself after a short time. A router uses it to
            // find its neighbors.
            let what = format!("{name} has its link-local address");
            network.run(|| await_that(&what, || has_link_local(name)));
        }
    }
}

/// Adds an address with its prefix to an interface of the thread's network.
pub fn add_address(address: &str, interface: &str) {
    let Ok(v6) = address.split('/').next().unwrap_or("").parse::<Ipv6Addr>() else {
        return ip(&format!("addr add {address} dev {interface}"));
    };
    ip(&format!("addr add {address} dev {interface} nodad"));
    // Linux accepts packets for the address after a short time (addrconf_dad_work in
    // net/ipv6/addrconf.c).
    await_that(&format!("{address} is a local address"), || is_own(v6));
}

/// Whether the thread's network accepts packets for that address. The fields of a line of
/// ipv6_route are destination, its prefix, source, its prefix, next hop, metric, two counters,
/// flags and name.
fn is_own(address: Ipv6Addr) -> bool {
    const LOCAL: u32 = 0x8000_0000; // RTF_LOCAL of linux/ipv6_route.h
    let text = std::fs::read_to_string("/proc/thread-self/net/ipv6_route").unwrap();
    let address = format!("{:032x}", address.to_bits());
    text.lines().any(|line| {
        let columns: Vec<_> = line.split_whitespace().collect();
        let flags = u32::from_str_radix(columns[8], 16).unwrap();
        columns[0] == address && columns[1] == "80" && flags & LOCAL != 0
    })
}

/// Whether an interface of the thread's network has a usable link-local address. The fields of a
/// line of if_inet6 are address, number, prefix, scope, flags and name.
fn has_link_local(name: &str) -> bool {
    const TENTATIVE: u32 = 0x40;
    let text = std::fs::read_to_string("/proc/thread-self/net/if_inet6").unwrap();
    text.lines().any(|line| {
        let columns: Vec<_> = line.split_whitespace().collect();
        let flags = u32::from_str_radix(columns[4], 16).unwrap();
        let address = Ipv6Addr::from(u128::from_str_radix(columns[0], 16).unwrap());
        let usable = flags & TENTATIVE == 0 && is_own(address);
        line.starts_with("fe80") && columns[5] == name && usable
    })
}

/// Loads firewall rules into this network: nft(8) requires each `}` on its own line.
pub fn nft(rules: &str) {
    let child = tool("nft").args(["-f", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.unwrap_or_else(|e| cannot(&format!("nft: {e}")));
    child.stdin.take().unwrap().write_all(rules.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    if !output.status.success() {
        cannot(&format!("nft: {}\n{rules}", String::from_utf8_lossy(&output.stderr).trim()));
    }
}
