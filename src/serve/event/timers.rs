//! When which connection is to be looked at. No I/O, no clock.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A place has so many bits of a timer's number; the moment has the rest.
const PLACE_BITS: u32 = 24;
const PLACE: u64 = (1 << PLACE_BITS) - 1;

/// Timers, the earliest first. One that is no longer wanted stays until it is met, or until there
/// are too many of them: so ending a connection, or setting a timer anew, costs next to nothing.
/// Which are wanted is asked of those who set them: `is_set(moment, place)`.
#[derive(Debug, Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<u64>>,
    unwanted: usize,
}

impl Timers {
    pub(super) fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    pub(super) fn set(&mut self, moment: u64, place: u32) {
        self.heap.push(Reverse(moment << PLACE_BITS | u64::from(place)));
    }

    /// One that was set is no longer wanted.
    pub(super) fn give_up(&mut self) {
        self.unwanted += 1;
    }

    /// The moment of the earliest that is wanted.
    pub(super) fn next(&mut self, is_set: impl Fn(u64, u32) -> bool) -> Option<u64> {
        let wanted = |timer: u64| is_set(timer >> PLACE_BITS, (timer & PLACE) as u32);
        // More than half of them, and enough that looking at all of them pays.
        if self.unwanted > 64 && self.unwanted > self.heap.len() / 2 {
            self.heap.retain(|Reverse(timer)| wanted(*timer));
            self.heap.shrink_to(self.heap.len() * 2);
            self.unwanted = 0;
        }
        while let Some(Reverse(timer)) = self.heap.peek().copied() {
            if self.unwanted == 0 || wanted(timer) {
                return Some(timer >> PLACE_BITS);
            }
            self.heap.pop();
            self.unwanted -= 1;
        }
        None
    }

    /// Takes the earliest, if its moment has come: its place.
    pub(super) fn take(&mut self, now: u64, is_set: impl Fn(u64, u32) -> bool) -> Option<u32> {
        if self.next(is_set)? > now {
            return None;
        }
        self.heap.pop().map(|Reverse(timer)| (timer & PLACE) as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    /// V2: each in its time, those that are no longer wanted never, whatever is set anew.
    #[test]
    fn in_their_order() {
        let mut timers = Timers::default();
        let mut set = HashMap::new();
        for place in 0..1000u32 {
            let moment = u64::from(place * 7919 % 1000) + 1;
            timers.set(moment, place);
            set.insert(place, moment);
        }
        // A third is given up, a third comes earlier.
        for place in 0..1000 {
            match place % 3 {
                0 => {
                    set.remove(&place);
                    timers.give_up();
                }
                1 if set[&place] > 10 => {
                    timers.set(10, place);
                    set.insert(place, 10);
                    timers.give_up();
                }
                _ => {}
            }
        }
        let mut seen = 0;
        for now in 0..=1000 {
            while let Some(place) =
                timers.take(now, |moment, place| set.get(&place) == Some(&moment))
            {
                assert_eq!(set.remove(&place), Some(now), "{place}");
                seen += 1;
            }
        }
        assert_eq!((seen, set.len(), timers.unwanted), (666, 0, 0));
        assert!(timers.is_empty());
    }

    /// V2: connections that come and go, with limits that are never met, take no more room than
    /// those that stay.
    #[test]
    fn the_unwanted_do_not_pile_up() {
        let mut timers = Timers::default();
        let mut live = std::collections::VecDeque::new();
        for n in 0..100_000u64 {
            timers.set(1_000_000 + n, (n % 1000) as u32);
            live.push_back(1_000_000 + n);
            if live.len() > 100 {
                live.pop_front();
                timers.give_up();
            }
            let first = *live.front().unwrap();
            assert_eq!(timers.next(|moment, _| moment >= first), Some(first));
            assert!(timers.heap.len() <= 2 * 101 + 65, "{}", timers.heap.len());
        }
        assert!(timers.heap.capacity() < 1000, "{}", timers.heap.capacity());
    }
}
