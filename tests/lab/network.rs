//! Building networks: interfaces, addresses, names.

use std::fs::File;
use std::io::Write as _;
use std::net::Ipv6Addr;
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};
use std::thread;
use std::{io, panic};

use super::await_that;
use super::run::cannot;

/// Runs ip(8); a machine on which that fails cannot show the lab.
pub fn ip(words: &str) {
    run_tool(tool("ip").args(words.split_whitespace()));
}

/// A program of the system's administrator. A user's PATH may lack its folder.
pub(super) fn tool(name: &str) -> Command {
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

/// Puts `text` in the place of a file under /etc, for this mount namespace.
pub fn replace_file(path: &str, text: &str) {
    let dir = std::env::temp_dir();
    let name = path.replace('/', "-");
    let made = dir.join(format!("keepsock-lab-{}{name}", std::process::id()));
    std::fs::write(&made, text).unwrap();
    run_tool(tool("mount").arg("--bind").arg(&made).arg(path));
    // The mount keeps it.
    std::fs::remove_file(&made).unwrap();
}

/// Names come from this hosts file, and from nowhere else.
pub fn names(hosts: &str) {
    replace_file("/etc/nsswitch.conf", "hosts: files\n");
    replace_file("/etc/hosts", hosts);
}

/// Names are asked of a server that never answers.
pub fn silent_resolver(options: &str) {
    blackhole();
    replace_file("/etc/nsswitch.conf", "hosts: dns\n");
    replace_file("/etc/resolv.conf", &format!("nameserver 192.0.2.53\noptions {options}\n"));
}

/// An address that swallows whatever is sent to it. Others in 192.0.2.0/24 and
/// 2001:db8::/64 do, too, and with `default route` all that are not local.
pub const HOLE: &str = "192.0.2.77";
pub const HOLE6: &str = "2001:db8::77";

/// Makes the interface `hole`, whose packets nobody takes: without ARP they are
/// sent without asking for the receiver first, so that no answer isn't noticed.
pub fn blackhole() {
    ip("link add hole type veth peer name hole-end");
    ip("link set hole arp off");
    ip("link set hole up");
    ip("link set hole-end up");
    ip("addr add 192.0.2.1/24 dev hole");
    ip("-6 addr add 2001:db8::1/64 dev hole nodad");
}

/// A network beside the lab's own, with its loopback interface up. It ends, and
/// everything made in it, with the last descriptor and thread in it.
pub struct Network {
    /// Keeps the namespace, and is the way into it.
    handle: File,
}

impl Network {
    pub fn new() -> Network {
        // A thread may move alone (unshare(2), CLONE_NEWNET); the rest of the
        // process stays where it is.
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

    /// Does `work` in this network. A socket stays in the network where it was
    /// made, whoever uses it later, and so does a process that `work` starts.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let mut enter = self.entrance();
        in_a_thread(move || {
            enter().unwrap();
            work()
        })
    }

    /// Moves the thread that calls it here.
    pub(super) fn entrance(&self) -> impl FnMut() -> io::Result<()> + Send + Sync + 'static {
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

    /// As ip(8) takes it after `netns`.
    fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.handle.as_raw_fd())
    }
}

/// Moves this thread, and the processes that it starts, into a network of its own.
pub fn leave_network() {
    // SAFETY: no memory is passed.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
        cannot(&format!("unshare: {}", io::Error::last_os_error()));
    }
}

/// Returns what `work` returned, and panics if it did.
fn in_a_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| scope.spawn(work).join()).unwrap_or_else(|e| panic::resume_unwind(e))
}

/// Joins two networks by a pair of interfaces: the name of each, and its
/// addresses with their prefixes. What is sent into one comes out of the other.
pub fn join(a: (&Network, &str, &[&str]), b: (&Network, &str, &[&str])) {
    a.0.ip(&format!("link add {} type veth peer name {} netns {}", a.1, b.1, b.0.path()));
    let is_v6 = |address: &&str| address.contains(':');
    let ends = [a, b];
    for (network, name, addresses) in ends {
        if addresses.iter().any(is_v6) {
            // No test for duplicates (RFC 4862), which takes a second or two.
            network.run(|| sysctl(&format!("net.ipv6.conf.{name}.accept_dad"), "0"));
        }
        network.ip(&format!("link set {name} up"));
    }
    for (network, name, addresses) in ends {
        for address in addresses {
            network.run(|| add_address(address, name));
        }
        if addresses.iter().any(is_v6) {
            // The link-local one, from which a router asks for its neighbours, the
            // kernel adds itself, in a while.
            let what = format!("{name} has its link-local address");
            network.run(|| await_that(&what, || has_link_local(name)));
        }
    }
}

/// Gives an interface of the thread's network one more address, with its prefix.
pub fn add_address(address: &str, interface: &str) {
    let Ok(v6) = address.split('/').next().unwrap_or("").parse::<Ipv6Addr>() else {
        return ip(&format!("addr add {address} dev {interface}"));
    };
    ip(&format!("addr add {address} dev {interface} nodad"));
    // Linux begins to take packets for it in a while (addrconf_dad_work in net/ipv6/addrconf.c).
    await_that(&format!("{address} is taken for its own"), || is_own(v6));
}

/// Whether the thread's network takes packets for that address. A line of ipv6_route: destination,
/// its prefix, source, its prefix, next hop, metric, two counters, flags, name.
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

/// Whether an interface of the thread's network has a link-local address that
/// may be used. A line of if_inet6: address, number, prefix, scope, flags, name.
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

/// Loads firewall rules into this network: nft(8) wants each `}` on a line of its own.
pub fn nft(rules: &str) {
    let child = tool("nft").args(["-f", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.unwrap_or_else(|e| cannot(&format!("nft: {e}")));
    child.stdin.take().unwrap().write_all(rules.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    if !output.status.success() {
        cannot(&format!("nft: {}\n{rules}", String::from_utf8_lossy(&output.stderr).trim()));
    }
}
