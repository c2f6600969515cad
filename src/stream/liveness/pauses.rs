//! Pauses of the process or of its event loop, in which no timeout may expire.

use std::time::Duration;

/// A shorter pause is the usual delay of a timer.
const MIN_PAUSE: Duration = Duration::from_millis(50);
/// The number of pauses of one size class that are kept. Further pauses do not change the result.
const MAX_PAUSES: usize = 16;

/// The pauses of a process or of its event loop: SIGSTOP, a slow callback, a program that did not
/// call.
///
/// No data was sent or read during a pause, so a timeout restarts after it. If it restarted after
/// every pause, it would never end a connection of a program that often pauses. Within one idle
/// period a timeout therefore restarts after the first pause, and then only after a pause of at least
/// twice the size of the largest before. Points in time are durations since any fixed start.
#[derive(Debug, Default)]
pub(crate) struct Pauses {
    /// In the order of time.
    pauses: Vec<Pause>,
}

#[derive(Debug, Clone, Copy)]
struct Pause {
    end: Duration,
    length: Duration,
}

impl Pause {
    /// The size class. The length doubles from one class to the next.
    fn class(self) -> u32 {
        (self.length.as_millis() / MIN_PAUSE.as_millis()).checked_ilog2().unwrap_or(0)
    }
}

impl Pauses {
    /// Records that a pause of this length ends now. It may include a pause that was recorded before
    /// it had ended.
    pub(crate) fn note(&mut self, now: Duration, length: Duration) {
        if length < MIN_PAUSE {
            return;
        }
        let start = now.saturating_sub(length);
        while self.pauses.last().is_some_and(|last| last.end > start) {
            self.pauses.pop();
        }
        let pause = Pause { end: now, length };
        let same_class = |other: &Pause| other.class() == pause.class();
        if self.pauses.iter().filter(|other| same_class(other)).count() == MAX_PAUSES {
            if let Some(oldest) = self.pauses.iter().position(same_class) {
                self.pauses.remove(oldest);
            }
        }
        self.pauses.push(pause);
    }

    /// The time since a timeout restarted because of a pause. `idle` is the time since it would
    /// have started otherwise. `None`: it did not restart. Only pauses of at least a quarter of the
    /// timeout count.
    pub(super) fn restart(
        &self,
        timeout: Duration,
        idle: Duration,
        now: Duration,
    ) -> Option<Duration> {
        let shortest = (timeout / 4).max(MIN_PAUSE);
        let mut last: Option<Pause> = None;
        for pause in self.pauses.iter().filter(|pause| pause.length >= shortest) {
            let within = now.saturating_sub(pause.end) < idle;
            if within && last.is_none_or(|last| pause.class() > last.class()) {
                last = Some(*pause);
            }
        }
        last.map(|pause| now.saturating_sub(pause.end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    /// A pause has at least the minimum length, and replaces only pauses that it includes.
    #[test]
    fn note_keeps_pauses_that_follow_each_other() {
        let mut pauses = Pauses::default();
        pauses.note(S, MIN_PAUSE - ms(1));
        assert!(pauses.pauses.is_empty());
        pauses.note(S, MIN_PAUSE);
        pauses.note(S + ms(200), ms(200));
        assert_eq!(pauses.pauses.len(), 2);
        pauses.note(S + ms(300), ms(101));
        assert_eq!(pauses.pauses.len(), 2);
    }

    /// A timeout restarts after the first pause of an idle period, and after one of twice the size.
    #[test]
    fn pauses_restart_a_timeout_once_for_each_size() {
        let mut pauses = Pauses::default();
        for (end, length) in [(S, ms(10)), (2 * S, ms(60)), (3 * S, ms(400)), (4 * S, ms(400))] {
            pauses.note(end, length);
        }
        let restart = |pauses: &Pauses, timeout, idle| pauses.restart(timeout, idle, 10 * S);
        assert_eq!(restart(&pauses, ms(100), 10 * S), Some(7 * S));
        assert_eq!(restart(&pauses, S, 10 * S), Some(7 * S));
        assert_eq!(restart(&pauses, S, 7 * S), Some(6 * S), "the period began after the first");
        assert_eq!(restart(&pauses, S, 6 * S), None);
        assert_eq!(restart(&pauses, 2 * S, 10 * S), None);
        pauses.note(5 * S, ms(850));
        assert_eq!(restart(&pauses, S, 10 * S), Some(5 * S));
        // The same pause, which had not ended.
        pauses.note(6 * S, ms(1850));
        assert_eq!(restart(&pauses, 4 * S, 10 * S), Some(4 * S));
        assert_eq!(pauses.pauses.len(), 4);
        (0..1000).for_each(|i| pauses.note(10 * S + ms(i * 300), ms(200)));
        assert!(pauses.pauses.len() <= 4 + MAX_PAUSES, "{}", pauses.pauses.len());
    }
}
