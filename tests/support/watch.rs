//! Watches processes, threads and sockets.

// This file makes system calls that the standard library does not have.
#![allow(unsafe_code)]

use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::timing::ms;

/// Waits until `there` returns true. The kernel has no event for these conditions.
pub fn await_that(what: &str, mut there: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(60);
    while !there() {
        assert!(Instant::now() < until, "not seen within 60 s: {what}");
        thread::sleep(ms(1));
    }
}

/// The number of TCP sockets of this network that wait for an answer to their SYN.
pub fn count_syn_sent() -> usize {
    ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"]
        .iter()
        .filter_map(|path| std::fs::read_to_string(path).ok())
        .flat_map(|text| {
            let states = text.lines().map(|line| line.split_whitespace().nth(3) == Some("02"));
            states.collect::<Vec<_>>()
        })
        .filter(|waits| *waits)
        .count()
}

/// The number of threads of this process with that name.
pub fn count_threads(name: &str) -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let named = |path: &Path| {
        std::fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.trim_end() == name)
    };
    tasks.filter(|task| named(&task.path())).count()
}

pub fn count_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// The processor time of the threads with a name, and the number of times they slept and woke.
#[derive(Debug, Clone, Copy)]
pub struct Used {
    pub cpu: Duration,
    pub waits: u64,
}

/// The usage so far of this process's threads with that name.
pub fn used_by(name: &str) -> Used {
    let mut used = Used { cpu: Duration::ZERO, waits: 0 };
    for task in std::fs::read_dir("/proc/self/task").unwrap().flatten() {
        let read = |what: &str| std::fs::read_to_string(task.path().join(what)).unwrap_or_default();
        if read("comm").trim_end() != name {
            continue;
        }
        // proc_pid_schedstat: nanoseconds on a processor, user and system, come first.
        let time = read("schedstat").split_whitespace().next().and_then(|n| n.parse().ok());
        let Some(time) = time else {
            super::process::cannot("no /proc/<pid>/schedstat");
        };
        used.cpu += Duration::from_nanos(time);
        let status = read("status");
        let waits = status.lines().find_map(|l| l.strip_prefix("voluntary_ctxt_switches:"));
        used.waits += waits.unwrap().trim().parse::<u64>().unwrap();
    }
    used
}

impl std::ops::Sub for Used {
    type Output = Used;

    fn sub(self, before: Used) -> Used {
        Used { cpu: self.cpu - before.cpu, waits: self.waits - before.waits }
    }
}

/// The memory of this process that is in RAM, in bytes.
pub fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
}

/// The processor time that this process has used.
pub fn cpu_time() -> Duration {
    // SAFETY: an all-zero rusage is valid, and the kernel writes one.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        assert_eq!(libc::getrusage(libc::RUSAGE_SELF, &raw mut usage), 0);
        usage
    };
    let time = |t: libc::timeval| {
        Duration::from_secs(t.tv_sec as u64) + Duration::from_micros(t.tv_usec as u64)
    };
    time(usage.ru_utime) + time(usage.ru_stime)
}

/// Nanoseconds of a clock that all processes of this host share.
pub fn monotonic() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one timespec.
    assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) }, 0);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Returns which of these sockets are readable or closed. Waits for one, for at most 30 s.
pub fn await_readable(sockets: &[TcpStream]) -> Vec<usize> {
    let poll = |socket: &TcpStream| libc::pollfd {
        fd: socket.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    let mut polled: Vec<_> = sockets.iter().map(poll).collect();
    // SAFETY: the kernel reads and writes `polled.len()` structures.
    let n = unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, 30_000) };
    assert!(n > 0, "nothing to read for 30 s");
    let readable = polled.iter().enumerate().filter(|(_, poll)| poll.revents != 0);
    readable.map(|(number, _)| number).collect()
}

pub fn thread_id() -> i32 {
    // SAFETY: no memory is passed.
    unsafe { libc::gettid() }
}

/// Waits until that thread of this process sleeps in that system call.
pub fn await_blocked(thread: i32, call: libc::c_long) {
    let path = format!("/proc/self/task/{thread}/syscall");
    let number = call.to_string();
    await_that("the thread waits in the call", || {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        text.split_whitespace().next() == Some(number.as_str())
    });
}

/// The number of times that thread of this process has slept, which equals its wake-ups.
pub fn switches(thread: i32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/self/task/{thread}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    line.unwrap().trim().parse().unwrap()
}

/// The number of unacknowledged segments of that connection (`tcpi_unacked` of TCP_INFO, tcp(7)).
pub fn unacknowledged(socket: &impl AsFd) -> u32 {
    tcp_info(socket).tcpi_unacked
}

/// Whether unsent data is queued and none is in transit, which is the state behind a closed window
/// of the peer (SIOCOUTQNSD, include/uapi/linux/sockios.h).
pub fn is_held_back(socket: &impl AsFd) -> bool {
    let mut unsent: libc::c_int = 0;
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the kernel writes one int.
    assert_eq!(unsafe { libc::ioctl(fd, libc::SIOCOUTQNSD as _, &raw mut unsent) }, 0);
    unsent > 0 && unacknowledged(socket) == 0
}

pub fn tcp_info(socket: &impl AsFd) -> libc::tcp_info {
    // SAFETY: an all-zero tcp_info is valid; the kernel writes at most `len` bytes.
    unsafe {
        let mut info: libc::tcp_info = std::mem::zeroed();
        let mut len = size_of::<libc::tcp_info>() as libc::socklen_t;
        let fd = socket.as_fd().as_raw_fd();
        let got = (&raw mut info).cast();
        assert_eq!(libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, got, &raw mut len), 0);
        info
    }
}

/// Writes until the peer's window and this side's buffer are full. Returns the number of bytes. The
/// peer's kernel still acknowledges probes of its closed window (RFC 9293 section 3.8.6.1).
pub fn fill_window(mut stream: &TcpStream) -> usize {
    stream.set_nonblocking(true).unwrap();
    let mut sent = 0;
    while !is_held_back(&stream) {
        loop {
            match stream.write(&[b'x'; 1 << 16]) {
                Ok(n) => sent += n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) => panic!("{e}"),
            }
        }
        thread::sleep(ms(1));
    }
    stream.set_nonblocking(false).unwrap();
    sent
}

/// Connects with the data in the SYN (TCP Fast Open, RFC 7413).
pub fn connect_with_data(to: std::net::SocketAddr, data: &[u8]) -> TcpStream {
    let socket =
        socket2::Socket::new(socket2::Domain::for_address(to), socket2::Type::STREAM, None);
    let socket = socket.unwrap();
    match socket.send_to_with_flags(data, &to.into(), libc::MSG_FASTOPEN) {
        Ok(n) => assert_eq!(n, data.len()),
        Err(e) => super::process::cannot(&format!("TCP Fast Open: {e}")),
    }
    socket.into()
}

/// Sends a child the signal of Ctrl-C.
pub fn interrupt(child: libc::pid_t) {
    // SAFETY: no memory is passed.
    unsafe { libc::kill(child, libc::SIGINT) };
}

/// The number of packets that arrived at an interface of this network.
pub fn packets_in(interface: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    let line = text.lines().find_map(|line| line.trim().strip_prefix(&format!("{interface}:")));
    line.unwrap().split_whitespace().nth(1).unwrap().parse().unwrap()
}
