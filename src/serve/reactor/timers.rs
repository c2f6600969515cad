//! A queue of timers. It does no I/O and reads no clock.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::mem;

/// The lower bits of a timer hold the index of its entry, the upper bits the time.
const INDEX_BITS: u32 = 24;
const INDEX_MASK: u64 = (1 << INDEX_BITS) - 1;

/// Timers, the earliest first. A cancelled timer stays in the heap until it is the earliest, or
/// until there are too many of them. So a connection that ends or that sets its timer again costs
/// very little. The caller knows which timers are still set: `is_set(time, index)`.
#[derive(Debug, Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<u64>>,
    cancelled: usize,
}

impl Timers {
    pub(super) fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    pub(super) fn set(&mut self, time: u64, index: u32) {
        self.heap.push(Reverse(time << INDEX_BITS | u64::from(index)));
    }

    /// Counts a timer in the heap as cancelled.
    pub(super) fn cancel(&mut self) {
        self.cancelled += 1;
    }

    /// The time of the earliest timer that is still set.
    pub(super) fn next(&mut self, is_set: impl Fn(u64, u32) -> bool) -> Option<u64> {
        let wanted = |timer: u64| is_set(timer >> INDEX_BITS, (timer & INDEX_MASK) as u32);
        // Rebuild the heap once more than half of its timers, and at least 65, are cancelled.
        if self.cancelled > 64 && self.cancelled > self.heap.len() / 2 {
            let mut timers = mem::take(&mut self.heap).into_vec();
            timers.retain(|Reverse(timer)| wanted(*timer));
            // A timer that was cancelled and set again to the same time is there twice.
            timers.sort_unstable();
            timers.dedup();
            timers.shrink_to(timers.len() * 2);
            self.heap = timers.into();
            self.cancelled = 0;
        }
        while let Some(Reverse(timer)) = self.heap.peek().copied() {
            if self.cancelled == 0 || wanted(timer) {
                return Some(timer >> INDEX_BITS);
            }
            self.heap.pop();
            self.cancelled -= 1;
        }
        None
    }

    /// Removes the earliest timer if it has expired, and returns its index.
    pub(super) fn pop_expired(
        &mut self,
        now: u64,
        is_set: impl Fn(u64, u32) -> bool,
    ) -> Option<u32> {
        if self.next(is_set)? > now {
            return None;
        }
        self.heap.pop().map(|Reverse(timer)| (timer & INDEX_MASK) as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    /// V2: each timer expires at its time; a cancelled one never does.
    #[test]
    fn timers_expire_in_order() {
        let mut timers = Timers::default();
        let mut set = HashMap::new();
        for index in 0..1000u32 {
            let time = u64::from(index * 7919 % 1000) + 1;
            timers.set(time, index);
            set.insert(index, time);
        }
        // A third is cancelled, and a third is set to an earlier time.
        for index in 0..1000 {
            match index % 3 {
                0 => {
                    set.remove(&index);
                    timers.cancel();
                }
                1 if set[&index] > 10 => {
                    timers.set(10, index);
                    set.insert(index, 10);
                    timers.cancel();
                }
                _ => {}
            }
        }
        let mut seen = 0;
        for now in 0..=1000 {
            while let Some(index) =
                timers.pop_expired(now, |time, index| set.get(&index) == Some(&time))
            {
                assert_eq!(set.remove(&index), Some(now), "{index}");
                seen += 1;
            }
        }
        assert_eq!((seen, set.len(), timers.cancelled), (666, 0, 0));
        assert!(timers.is_empty());
    }

    /// V2: a timer that is set again to a time at which it was cancelled expires once, also after the
    /// heap was rebuilt.
    #[test]
    fn timer_set_again_to_the_same_time_expires_once() {
        let mut timers = Timers::default();
        // Index 0 is set to 100, replaced by earlier times, and set to 100 again.
        for time in (36..=100).rev() {
            timers.set(time, 0);
        }
        (0..65).for_each(|_| timers.cancel());
        timers.set(100, 0);
        let mut is_due = true;
        assert_eq!(timers.next(|time, index| (time, index) == (100, 0)), Some(100));
        while let Some(index) =
            timers.pop_expired(100, |time, index| is_due && (time, index) == (100, 0))
        {
            assert!(std::mem::take(&mut is_due), "index {index} expired twice");
        }
        assert!(!is_due && timers.is_empty());
    }

    /// V2: the heap is rebuilt once more than half of its timers, and at least 65, are cancelled.
    #[test]
    fn heap_is_rebuilt_at_the_limit() {
        for (live, cancelled, rebuilt) in
            [(1, 64, false), (1, 65, true), (100, 100, false), (100, 101, true), (200, 101, false)]
        {
            let mut timers = Timers::default();
            for index in 0..live + cancelled {
                timers.set(u64::from(index) + 1, index);
            }
            (0..cancelled).for_each(|_| timers.cancel());
            // The earliest timers are set.
            assert_eq!(timers.next(|_, index| index < live), Some(1));
            let (len, left) = if rebuilt { (live, 0) } else { (live + cancelled, cancelled) };
            assert_eq!((timers.heap.len(), timers.cancelled), (len as usize, left as usize));
            // Twice as many timers need no new memory.
            assert!(timers.heap.capacity() >= 2 * len as usize || !rebuilt, "{live}");
        }
    }

    /// V2: a cancelled timer that is removed no longer counts.
    #[test]
    fn removed_timer_is_not_counted_as_cancelled() {
        let mut timers = Timers::default();
        (1..=4).for_each(|time| timers.set(time, time as u32));
        (0..3).for_each(|_| timers.cancel());
        assert_eq!(timers.next(|time, _| time > 2), Some(3));
        assert_eq!((timers.cancelled, timers.heap.len()), (1, 2));
    }

    /// V2: connections that come and go with timeouts that never expire take no more memory than
    /// the connections that stay.
    #[test]
    fn cancelled_timers_do_not_accumulate() {
        let mut timers = Timers::default();
        let mut live = std::collections::VecDeque::new();
        for n in 0..100_000u64 {
            timers.set(1_000_000 + n, (n % 1000) as u32);
            live.push_back(1_000_000 + n);
            if live.len() > 100 {
                live.pop_front();
                timers.cancel();
            }
            let first = *live.front().unwrap();
            assert_eq!(timers.next(|time, _| time >= first), Some(first));
            assert!(timers.heap.len() <= 2 * 101 + 65, "{}", timers.heap.len());
        }
        assert!(timers.heap.capacity() < 1000, "{}", timers.heap.capacity());
    }
}
