//! TCP keepalive: how the network is told that an idle connection lives.

use std::cmp::Reverse;
use std::fmt;
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};

/// The largest idle time and interval that Linux takes (`MAX_TCP_KEEPIDLE`).
/// Other systems take more; one range everywhere keeps programs portable.
const MAX_SECONDS: u64 = 32_767;
/// The largest count that Linux takes (`MAX_TCP_KEEPCNT`).
const MAX_COUNT: u32 = 127;

/// TCP keepalive settings: after `idle` without traffic the kernel sends a
/// probe, then one each `interval`; after `count` unanswered probes the
/// connection is reported as [dead](ErrorKind::Dead). An idle peer that
/// vanished is thus known after idle + interval × count (RFC 9293 section 3.8.4,
/// tcp(7)).
///
/// The default, which every keepsock socket has unless told otherwise, is
/// idle 45 s, interval 15 s, count 5: a dead peer is known in 120 s, and a
/// probe passes more often than common firewalls, NATs and load balancers
/// forget idle connections (4 to 60 minutes).
///
/// ```
/// use keepsock::Keepalive;
/// use std::time::Duration;
/// // Sub-second values round up: kernels count in seconds.
/// let fast = Keepalive::new(Duration::from_millis(1500), Duration::from_secs(1), 3)?;
/// assert_eq!(fast.idle(), Duration::from_secs(2));
/// assert_eq!(fast.dead_after(), Duration::from_secs(5));
/// # Ok::<(), keepsock::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keepalive {
    idle: u16,
    interval: u16,
    count: u8,
}

impl Keepalive {
    /// Settings of your own. Times round up to whole seconds.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] if a time is zero or longer than 32,767 s,
    /// or the count is not within 1 to 127.
    ///
    /// ```
    /// use std::time::Duration;
    /// let keepalive = keepsock::Keepalive::new(Duration::from_secs(30), Duration::from_secs(10), 3)?;
    /// assert_eq!(keepalive.to_string(), "idle 30 s, interval 10 s, count 3");
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn new(idle: Duration, interval: Duration, count: u32) -> Result<Keepalive> {
        let count = match u8::try_from(count) {
            Ok(n @ 1..=127) => n,
            _ => return Err(refuse(format!("count {count} is not within 1 to {MAX_COUNT}"))),
        };
        Ok(Keepalive {
            idle: seconds("idle", idle)?,
            interval: seconds("interval", interval)?,
            count,
        })
    }

    /// The time without traffic before the first probe; whole seconds.
    ///
    /// ```
    /// assert_eq!(keepsock::Keepalive::default().idle().as_secs(), 45);
    /// ```
    pub fn idle(&self) -> Duration {
        Duration::from_secs(self.idle.into())
    }

    /// The time between probes; whole seconds.
    ///
    /// ```
    /// assert_eq!(keepsock::Keepalive::default().interval().as_secs(), 15);
    /// ```
    pub fn interval(&self) -> Duration {
        Duration::from_secs(self.interval.into())
    }

    /// The number of unanswered probes after which the peer is dead.
    ///
    /// ```
    /// assert_eq!(keepsock::Keepalive::default().count(), 5);
    /// ```
    pub fn count(&self) -> u32 {
        self.count.into()
    }

    /// When an idle peer that vanished is known to be dead: idle + interval × count.
    ///
    /// ```
    /// assert_eq!(keepsock::Keepalive::default().dead_after().as_secs(), 120);
    /// ```
    pub fn dead_after(&self) -> Duration {
        self.idle() + self.interval() * self.count()
    }
}

/// What the options say of keepalive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Setting {
    /// The defaults, adapted to what else was asked for.
    #[default]
    Adapted,
    Off,
    Own(Keepalive),
}

impl Setting {
    /// The values that keep both promises: an idle peer that vanished is known to be dead
    /// within `dead_after`, and an idle connection has traffic every `survive_idle`.
    /// Values of the caller's own are not bent, but refused if they break one.
    pub(crate) fn resolve(
        self,
        dead_after: Option<Duration>,
        survive_idle: Option<Duration>,
    ) -> Result<Option<Keepalive>> {
        let keepalive = match self {
            Setting::Off if dead_after.or(survive_idle).is_some() => {
                return Err(refuse(
                    "keepalive is off, but dead_after and survive_idle need it".to_owned(),
                ));
            }
            Setting::Off => return Ok(None),
            Setting::Own(keepalive) => keepalive,
            Setting::Adapted => {
                let mut adapted = Keepalive::default();
                if let Some(limit) = dead_after {
                    adapted = Keepalive::dead_within(limit);
                }
                if let Some(limit) = survive_idle.filter(|limit| adapted.idle() > *limit / 2) {
                    adapted = adapted.never_idle_for(limit);
                }
                adapted
            }
        };
        match (dead_after, survive_idle) {
            (Some(limit), _) if keepalive.dead_after() > limit => Err(refuse(format!(
                "a dead peer is known after {:?}, not within dead_after, {limit:?}",
                keepalive.dead_after()
            ))),
            (_, Some(limit)) if keepalive.idle() > limit => {
                Err(refuse(format!("{keepalive}: longer idle than survive_idle, {limit:?}")))
            }
            _ => Ok(Some(keepalive)),
        }
    }
}

impl Keepalive {
    /// Finds a dead peer after `limit`, in whole seconds; at least 2 s. The longest idle
    /// time is that of the default, for the sake of firewalls.
    fn dead_within(limit: Duration) -> Keepalive {
        let total = limit.as_secs();
        let shortest_idle = (total / 3).clamp(1, 45);
        let probing = total.saturating_sub(shortest_idle).max(1);
        // What the intervals leave over is added to the idle time: little.
        let counts = probing.min(3)..=probing.min(5);
        let count = counts.min_by_key(|count| (probing % count, Reverse(*count))).unwrap_or(1);
        let interval = (probing / count).clamp(1, MAX_SECONDS);
        let idle = total.saturating_sub(interval * count).clamp(1, MAX_SECONDS);
        Keepalive { idle: idle as u16, interval: interval as u16, count: count as u8 }
    }

    /// Is idle for no more than half of `limit`, so that one lost probe does no harm, and
    /// finds a dead peer in the same time as before.
    fn never_idle_for(self, limit: Duration) -> Keepalive {
        let idle = (limit.as_secs() / 2).max(1);
        let interval = (limit.as_secs() / 4).clamp(1, self.interval().as_secs());
        let rest = self.dead_after().as_secs().saturating_sub(idle);
        let count = (rest / interval).clamp(1, u64::from(MAX_COUNT));
        Keepalive { idle: idle as u16, interval: interval as u16, count: count as u8 }
    }
}

impl Default for Keepalive {
    fn default() -> Keepalive {
        Keepalive { idle: 45, interval: 15, count: 5 }
    }
}

/// `idle 45 s, interval 15 s, count 5`
impl fmt::Display for Keepalive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Keepalive { idle, interval, count } = self;
        write!(f, "idle {idle} s, interval {interval} s, count {count}")
    }
}

fn refuse(detail: String) -> Error {
    Error::new(ErrorKind::InvalidArgument, "keepalive").detail(detail)
}

fn seconds(name: &str, time: Duration) -> Result<u16> {
    let up = time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0));
    match u16::try_from(up) {
        Ok(s) if (1..=MAX_SECONDS).contains(&up) => Ok(s),
        _ => Err(refuse(format!("{name} {time:?} is not within 1 ms to {MAX_SECONDS} s"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// K1: sub-second values round up.
    #[test]
    fn times_round_up() {
        let ms = Duration::from_millis;
        let k = Keepalive::new(ms(1), ms(2001), 1).unwrap();
        assert_eq!((k.idle(), k.interval(), k.count()), (ms(1000), ms(3000), 1));
    }

    /// K1: out-of-range values are refused.
    #[test]
    fn out_of_range_is_refused() {
        let s = Duration::from_secs;
        for (idle, interval, count) in [
            (s(0), s(1), 1),
            (s(1), s(0), 1),
            (s(32_768), s(1), 1),
            (s(1), s(u64::MAX), 1),
            (Duration::MAX, s(1), 1),
            (s(1), s(1), 0),
            (s(1), s(1), 128),
            (s(1), s(1), u32::MAX),
        ] {
            let err = Keepalive::new(idle, interval, count).unwrap_err();
            assert_eq!(err.kind(), ErrorKind::InvalidArgument);
        }
        assert!(Keepalive::new(s(32_767), s(32_767), 127).is_ok());
    }

    /// K3: an idle peer that vanished is known within the time, and not a second or more
    /// before it; no firewall is left without traffic for a minute.
    #[test]
    fn dead_after_in_terms_of_keepalive() {
        for seconds in (2..400).chain([3600, 100_000]) {
            let limit = Duration::from_secs(seconds);
            let k = Setting::Adapted.resolve(Some(limit), None).unwrap().unwrap();
            assert_eq!(k.dead_after(), limit, "{k}");
            assert!(k.idle() < Duration::from_secs(60), "{k}");
            assert!(k.idle() <= limit / 2, "{k}");
            // Fractions of a second are not the kernel's.
            let more = limit + Duration::from_millis(999);
            assert_eq!(Setting::Adapted.resolve(Some(more), None).unwrap(), Some(k));
        }
    }

    /// K4: one lost probe does no harm, and dead peers are found no later than before.
    #[test]
    fn survive_idle_in_terms_of_keepalive() {
        for seconds in 2..400 {
            let limit = Duration::from_secs(seconds);
            for dead_after in [None, Some(2), Some(5), Some(60)].map(|t| t.map(Duration::from_secs))
            {
                let k = Setting::Adapted.resolve(dead_after, Some(limit)).unwrap().unwrap();
                assert!(
                    k.idle() + k.interval() <= limit.max(Duration::from_secs(4)),
                    "{k} for {limit:?}"
                );
                assert!(k.idle() <= limit / 2, "{k} for {limit:?}");
                assert!(k.dead_after() <= dead_after.unwrap_or(Duration::from_secs(120)), "{k}");
            }
        }
        let unbent = Setting::Adapted.resolve(None, Some(Duration::from_secs(100))).unwrap();
        assert_eq!(unbent, Some(Keepalive::default()));
    }

    /// K1, K3, K4: what the caller set is kept, or refused; never bent.
    #[test]
    fn own_values_are_kept_or_refused() {
        let s = Duration::from_secs;
        let own = Keepalive::new(s(2), s(1), 3).unwrap();
        let fits = Setting::Own(own).resolve(Some(s(5)), Some(s(2)));
        assert_eq!(fits.unwrap(), Some(own));
        for (dead_after, survive_idle) in [(Some(s(4)), None), (None, Some(s(1)))] {
            let err = Setting::Own(own).resolve(dead_after, survive_idle).unwrap_err();
            assert_eq!(err.kind(), ErrorKind::InvalidArgument);
            let err = Setting::Off.resolve(dead_after, survive_idle).unwrap_err();
            assert_eq!(err.kind(), ErrorKind::InvalidArgument);
        }
        assert_eq!(Setting::Off.resolve(None, None).unwrap(), None);
    }

    /// K2: a dead idle peer is known in 120 s.
    #[test]
    fn the_default_knows_a_dead_peer_in_two_minutes() {
        assert_eq!(Keepalive::default().dead_after(), Duration::from_secs(120));
    }
}
