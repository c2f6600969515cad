//! The timers of a service. They do no I/O and read no clock. Times count from the service's start.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use crate::types::error::ErrorKind;

/// The function of a timer. It receives the id of the timer.
pub(super) trait TimerFunction: Send {
    fn call(&mut self, id: u64);
}

impl<F: FnMut(u64) + Send> TimerFunction for [F; 1] {
    fn call(&mut self, id: u64) {
        self[0](id);
    }
}

/// A timer expires within this time, so that no time overflows.
pub(super) const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// The timers of a service, by id. No id is used twice.
#[derive(Default)]
pub(super) struct ServiceTimers {
    timers: HashMap<u64, Timer>,
    /// The timers that are set, in the order of their times.
    order: BTreeSet<(Duration, u64)>,
    last_id: u64,
}

struct Timer {
    at: Duration,
    interval: Option<Duration>,
    /// `None` while the function is called.
    function: Option<Box<dyn TimerFunction>>,
}

/// The next time of a repeating timer. Periods that have passed are skipped.
fn following(at: Duration, interval: Duration, now: Duration) -> Duration {
    let passed = now.saturating_sub(at).as_nanos() / interval.as_nanos().max(1);
    let ahead = interval.as_nanos().saturating_mul(passed + 1);
    at.saturating_add(Duration::from_nanos(u64::try_from(ahead).unwrap_or(u64::MAX)))
}

impl ServiceTimers {
    /// Sets a timer. Returns its id, and whether it is the earliest one. Without memory it takes no
    /// function.
    pub(super) fn add(
        &mut self,
        now: Duration,
        delay: Duration,
        interval: Option<Duration>,
        function: &mut Option<Box<dyn TimerFunction>>,
    ) -> Result<(u64, bool), ErrorKind> {
        self.timers.try_reserve(1).map_err(|_| ErrorKind::NoMemory)?;
        self.last_id += 1;
        let id = self.last_id;
        let (at, interval) =
            (now.saturating_add(delay.min(CENTURY)), interval.map(|time| time.min(CENTURY)));
        self.timers.insert(id, Timer { at, interval, function: function.take() });
        self.order.insert((at, id));
        Ok((id, self.order.first().is_some_and(|(_, first)| *first == id)))
    }

    /// Removes a timer. The caller drops the function after it has released the lock. `Err`: the
    /// timer has expired or was removed.
    pub(super) fn remove(&mut self, id: u64) -> Result<Option<Box<dyn TimerFunction>>, ()> {
        let timer = self.timers.remove(&id).ok_or(())?;
        self.order.remove(&(timer.at, id));
        Ok(timer.function)
    }

    /// When the earliest timer expires.
    pub(super) fn next(&self) -> Option<Duration> {
        self.order.first().map(|(at, _)| *at)
    }

    /// Takes the function of a timer that has expired. A timer that does not repeat is
    /// removed.
    pub(super) fn expire(&mut self, now: Duration) -> Option<(u64, Box<dyn TimerFunction>)> {
        let (at, id) = *self.order.first()?;
        if at > now {
            return None;
        }
        self.order.pop_first();
        let timer = self.timers.get_mut(&id)?;
        let function = timer.function.take();
        if timer.interval.is_none() {
            self.timers.remove(&id);
        }
        Some((id, function?))
    }

    /// Sets a repeating timer again after its function has returned. Returns the function of a timer
    /// that was removed in the meantime or does not repeat.
    pub(super) fn repeat(
        &mut self,
        id: u64,
        function: Box<dyn TimerFunction>,
        now: Duration,
    ) -> Option<Box<dyn TimerFunction>> {
        let Some(Timer { at, interval: Some(interval), function: place }) =
            self.timers.get_mut(&id)
        else {
            return Some(function);
        };
        *at = following(*at, *interval, now);
        *place = Some(function);
        self.order.insert((*at, id));
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn add(timers: &mut ServiceTimers, delay: u64, interval: Option<u64>) -> (u64, bool) {
        let function: Box<dyn TimerFunction> = Box::new([|_| ()]);
        timers.add(ms(1000), ms(delay), interval.map(ms), &mut Some(function)).unwrap()
    }

    /// V10: timers expire in order, not early, and once for each period that is not missed.
    #[test]
    fn service_timers_expire_in_order_and_skip_missed_periods() {
        let mut timers = ServiceTimers::default();
        let (repeating, first) = add(&mut timers, 100, Some(100));
        assert!(first);
        let (once, first) = add(&mut timers, 50, None);
        assert!(first);
        let (later, first) = add(&mut timers, 60, None);
        assert!(!first);
        assert_eq!(timers.next(), Some(ms(1050)));
        assert!(timers.expire(ms(1049)).is_none());
        assert_eq!(timers.expire(ms(1050)).unwrap().0, once);
        assert!(timers.remove(once).is_err(), "a timer that has expired");
        assert!(timers.remove(later).is_ok() && timers.remove(later).is_err());
        let mut at = Vec::new();
        // The process is stopped from 1,250 to 2,030 ms.
        for now in (1000..1250).chain(2030..2300) {
            while let Some((id, function)) = timers.expire(ms(now)) {
                assert_eq!(id, repeating);
                at.push(now);
                assert!(timers.repeat(id, function, ms(now)).is_none());
            }
        }
        assert_eq!(at, [1100, 1200, 2030, 2100, 2200]);
        let (id, function) = timers.expire(ms(2300)).unwrap();
        assert!(timers.remove(id).is_ok(), "removed while its function is called");
        assert!(timers.repeat(id, function, ms(2300)).is_some());
        assert!(timers.timers.is_empty() && timers.order.is_empty());
        let (id, _) = add(&mut timers, u64::MAX, Some(u64::MAX));
        let (_, function) = timers.expire(Duration::MAX).unwrap();
        assert!(timers.repeat(id, function, ms(u64::MAX)).is_none());
    }

    #[test]
    fn timer_function_receives_the_id() {
        let mut ids = Vec::new();
        TimerFunction::call(&mut [|id| ids.push(id)], 7);
        assert_eq!(ids, [7]);
    }

    #[test]
    fn add_with_the_longest_delay_expires_after_a_century() {
        let mut timers = ServiceTimers::default();
        add(&mut timers, u64::MAX, None);
        assert_eq!(timers.next(), Some(ms(1000) + Duration::from_secs(3_153_600_000)));
    }
}
