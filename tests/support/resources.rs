//! Descriptors and threads of this process.

use std::thread;
use std::time::{Duration, Instant};

/// Resources that a process must not lose.
pub struct Resources {
    descriptors: usize,
    threads: usize,
}

impl Resources {
    pub fn now() -> Resources {
        let count = |path| std::fs::read_dir(path).unwrap().count();
        Resources { descriptors: count("/proc/self/fd"), threads: count("/proc/self/task") }
    }

    /// The use after the background work of earlier tests has ended.
    pub fn settled() -> Resources {
        let mut last = Resources::now();
        let mut since = Instant::now();
        while since.elapsed() < Duration::from_millis(300) {
            thread::sleep(Duration::from_millis(10));
            let now = Resources::now();
            if (now.descriptors, now.threads) != (last.descriptors, last.threads) {
                (last, since) = (now, Instant::now());
            }
        }
        last
    }

    /// Waits until the use is at most this. Otherwise returns the excess.
    pub fn await_again(&self, limit: Duration) -> Option<String> {
        let until = Instant::now() + limit;
        loop {
            let now = Resources::now();
            if now.descriptors <= self.descriptors && now.threads <= self.threads {
                return None;
            }
            if Instant::now() > until {
                let more = |now: usize, before: usize| now.saturating_sub(before);
                return Some(format!(
                    "{} descriptors, {} threads",
                    more(now.descriptors, self.descriptors),
                    more(now.threads, self.threads)
                ));
            }
            thread::sleep(Duration::from_micros(200));
        }
    }
}
