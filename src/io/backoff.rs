//! Backoff: the waiting time before a retry, which doubles with each failure.

use std::time::Duration;

/// A time that doubles with each call of [`next`](BackOff::next), up to a maximum.
#[derive(Debug, Clone)]
pub(crate) struct BackOff {
    longest: Duration,
    next: Duration,
}

impl BackOff {
    pub(crate) const fn new(first: Duration, longest: Duration) -> BackOff {
        BackOff { longest, next: first }
    }

    pub(crate) fn next(&mut self) -> Duration {
        let now = self.next;
        self.next = now.saturating_mul(2).min(self.longest);
        now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn next_doubles_up_to_the_maximum() {
        let ms = Duration::from_millis;
        let mut backoff = BackOff::new(ms(100), ms(1000));
        let times: Vec<_> = (0..6).map(|_| backoff.next()).collect();
        assert_eq!(times, [100, 200, 400, 800, 1000, 1000].map(ms));
        let mut endless = BackOff::new(Duration::MAX / 3, Duration::MAX);
        let times: Vec<_> = (0..4).map(|_| endless.next()).collect();
        assert_eq!(times[2..], [Duration::MAX, Duration::MAX]);
        let mut constant = BackOff::new(ms(50), ms(50));
        assert_eq!([constant.next(), constant.next()], [ms(50), ms(50)]);
    }
}
