//! A counting allocator; the descriptors, threads and memory that the process uses; and the latency of
//! replies.

// This file makes system calls that the standard library does not have, and counts allocations.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Counts the memory that is in use, of the library and of the soak.
pub struct Counting;

static BLOCKS: AtomicI64 = AtomicI64::new(0);
static BYTES: AtomicI64 = AtomicI64::new(0);

fn count(blocks: i64, bytes: usize) {
    BLOCKS.fetch_add(blocks, Relaxed);
    BYTES.fetch_add(if blocks < 0 { -(bytes as i64) } else { bytes as i64 }, Relaxed);
}

// SAFETY: the functions of the system's allocator do the work.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(1, layout.size());
        // SAFETY: the caller's contract is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(1, layout.size());
        // SAFETY: the caller's contract is the same.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count(-1, layout.size());
        // SAFETY: the caller's contract is the same.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        BYTES.fetch_add(size as i64 - layout.size() as i64, Relaxed);
        // SAFETY: the caller's contract is the same.
        unsafe { System.realloc(block, layout, size) }
    }
}

/// The resources that the process uses at one moment.
#[derive(Debug, Clone, Copy, Default)]
pub struct Use {
    pub rss: i64,
    pub blocks: i64,
    pub bytes: i64,
    pub descriptors: i64,
    pub threads: i64,
}

/// `None` while descriptors are exhausted.
pub fn used() -> Option<Use> {
    let entries = |path| std::fs::read_dir(path).ok().map(|entries| entries.count() as i64);
    // The resident pages are the second field.
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: i64 = statm.split(' ').nth(1)?.parse().ok()?;
    Some(Use {
        rss: pages * 4096,
        blocks: BLOCKS.load(Relaxed),
        bytes: BYTES.load(Relaxed),
        // Without the one that lists them.
        descriptors: entries("/proc/self/fd")? - 1,
        threads: entries("/proc/self/task")?,
    })
}

/// A few arenas of malloc(3), so that the memory in use does not depend on which threads allocated it.
pub fn limit_arenas() {
    // SAFETY: no pointer is passed.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2);
    }
}

/// Sets the soft limit of descriptors. The hard limit stays.
pub fn limit_descriptors(most: Option<u64>) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes and reads one rlimit.
    unsafe {
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit), 0);
        limit.rlim_cur = most.unwrap_or(limit.rlim_max).min(limit.rlim_max);
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit), 0);
    }
}

/// The highest descriptor number in use.
pub fn highest_descriptor() -> u64 {
    let entries = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    entries.filter_map(|e| e.file_name().to_str()?.parse().ok()).max().unwrap_or(0)
}

pub fn signal(pid: u32, signal: i32) {
    // SAFETY: no pointer is passed. The process is a child that was not yet waited for.
    unsafe { libc::kill(pid as libc::pid_t, signal) };
}

/// Waits until the descriptor has one of the events.
pub fn wait(fd: RawFd, events: i16, limit: Duration) -> i16 {
    let mut poll = libc::pollfd { fd, events, revents: 0 };
    let ms = i32::try_from(limit.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: the kernel reads and writes one pollfd.
    unsafe { libc::poll(&raw mut poll, 1, ms) };
    poll.revents
}

/// Sets IP_BIND_ADDRESS_NO_PORT: the port is chosen when the socket connects.
pub fn bind_without_port(fd: RawFd) {
    let on: libc::c_int = 1;
    // SAFETY: the kernel reads one int.
    unsafe {
        libc::setsockopt(
            fd,
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            size_of_val(&on) as u32,
        );
    }
}

/// Latencies in groups whose width is an eighth of their value.
pub struct Latencies([AtomicU32; 40 * 8]);

pub static LATENCIES: Latencies = Latencies([const { AtomicU32::new(0) }; 40 * 8]);

/// Messages of both directions that arrived, and connections that were made, for the plots.
pub static MESSAGES: AtomicU64 = AtomicU64::new(0);
pub static CONNECTIONS: AtomicU64 = AtomicU64::new(0);
pub static OPEN: AtomicI64 = AtomicI64::new(0);

impl Latencies {
    pub fn note(&self, since: Instant) {
        let us = (since.elapsed().as_micros() as u64).max(8);
        let top = 63 - u64::from(us.leading_zeros());
        let group = (top * 8 + ((us >> (top - 3)) & 7)) as usize;
        self.0[group.min(self.0.len() - 1)].fetch_add(1, Relaxed);
    }

    /// The 50th, 99th and 99.9th percentile in microseconds since the last call.
    pub fn take(&self) -> [f64; 3] {
        let counts: Vec<u64> = self.0.iter().map(|n| u64::from(n.swap(0, Relaxed))).collect();
        let all: u64 = counts.iter().sum();
        [0.5, 0.99, 0.999].map(|share| {
            let mut left = (all as f64 * share).ceil() as u64;
            for (group, n) in counts.iter().enumerate() {
                if *n > 0 && left <= *n {
                    let (top, eighth) = (group as u32 / 8, group as u64 % 8);
                    return ((8 + eighth) << top.saturating_sub(3)) as f64;
                }
                left -= (*n).min(left);
            }
            0.0
        })
    }
}
