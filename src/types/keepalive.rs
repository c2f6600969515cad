//! TCP keepalive settings: ranges, defaults, and the values that follow from other options. No I/O.

use std::cmp::Reverse;
use std::fmt;
use std::time::Duration;

use crate::types::error::{Error, ErrorKind, Millis, Result};

/// The largest idle time and interval that Linux accepts (`MAX_TCP_KEEPIDLE`). Other systems accept
/// more. The same range applies everywhere, so programs are portable.
const MAX_SECONDS: u64 = 32_767;
/// The largest count that Linux accepts (`MAX_TCP_KEEPCNT`).
const MAX_COUNT: u32 = 127;

/// The detail of an error of a call for the keepalive of a Unix socket.
pub(crate) const NO_KEEPALIVE: &str = "a Unix socket has no keepalive";

/// TCP keepalive settings.
///
/// After `idle` without traffic the kernel sends a probe, then one probe per `interval`. After
/// `count` unanswered probes the connection ends with the error [`Dead`](ErrorKind::Dead). So an
/// idle peer that has vanished is detected after idle + interval × count (RFC 9293 section 3.8.4,
/// tcp(7)).
///
/// Every TCP socket of keepsock uses the default unless it is configured otherwise: idle 45 s,
/// interval 15 s, count 5. It detects a dead peer after 120 s. Common firewalls, NATs and load
/// balancers discard idle connections after 4 to 60 minutes, so the probes keep a connection in
/// their tables.
///
/// ```
/// use keepsock::Keepalive;
/// use std::time::Duration;
/// // Kernels count whole seconds, so fractions are rounded up.
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
    /// Creates settings. Times are rounded up to whole seconds.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`]: a time is zero or longer than 32,767 s, or the count is not
    /// within 1 to 127.
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

    /// Returns the time without traffic before the first probe, in whole seconds.
    ///
    /// ```
    /// assert_eq!(keepsock::Keepalive::default().idle().as_secs(), 45);
    /// ```
    pub fn idle(&self) -> Duration {
        Duration::from_secs(self.idle.into())
    }

    /// Returns the time between probes, in whole seconds.
    ///
    /// ```
    /// assert_eq!(keepsock::Keepalive::default().interval().as_secs(), 15);
    /// ```
    pub fn interval(&self) -> Duration {
        Duration::from_secs(self.interval.into())
    }

    /// Returns the number of unanswered probes after which the peer counts as dead.
    ///
    /// ```
    /// assert_eq!(keepsock::Keepalive::default().count(), 5);
    /// ```
    pub fn count(&self) -> u32 {
        self.count.into()
    }

    /// Returns the time after which an idle peer that has vanished is detected: idle + interval ×
    /// count.
    ///
    /// ```
    /// assert_eq!(keepsock::Keepalive::default().dead_after().as_secs(), 120);
    /// ```
    pub fn dead_after(&self) -> Duration {
        self.idle() + self.interval() * self.count()
    }
}

/// The keepalive option of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum KeepaliveSetting {
    /// The default values, adapted to `dead_after` and `middlebox_timeout`.
    #[default]
    Adapted,
    Off,
    Own(Keepalive),
}

impl KeepaliveSetting {
    /// Returns the values to set; `None`: keepalive is off. With these values an idle peer that has
    /// vanished is detected within `dead_after`, and an idle connection has traffic every
    /// `middlebox_timeout`. Values of the caller are never changed. They are rejected if they do
    /// not meet these conditions.
    pub(crate) fn resolve(
        self,
        dead_after: Option<Duration>,
        middlebox_timeout: Option<Duration>,
    ) -> Result<Option<Keepalive>> {
        let keepalive = match self {
            KeepaliveSetting::Off if dead_after.or(middlebox_timeout).is_some() => {
                return Err(refuse(
                    "keepalive is off, but dead_after and middlebox_timeout need it: turn it on, \
                     or remove them"
                        .to_owned(),
                ));
            }
            KeepaliveSetting::Off => return Ok(None),
            KeepaliveSetting::Own(keepalive) => keepalive,
            KeepaliveSetting::Adapted if dead_after.or(middlebox_timeout).is_none() => {
                return Ok(Some(Keepalive::default()));
            }
            KeepaliveSetting::Adapted => {
                let mut adapted = Keepalive::default();
                if let Some(limit) = dead_after {
                    adapted = Keepalive::dead_within(limit);
                }
                if let Some(limit) = middlebox_timeout.filter(|limit| adapted.idle() > *limit / 2) {
                    adapted = adapted.never_idle_for(limit);
                }
                adapted
            }
        };
        match (dead_after, middlebox_timeout) {
            (Some(limit), _) if keepalive.dead_after() > limit => Err(refuse(format!(
                "keepalive ({keepalive}) detects a dead peer after {}, and dead_after is {}: \
                 shorten the keepalive times, or raise dead_after",
                Millis(keepalive.dead_after()),
                Millis(limit)
            ))),
            (_, Some(limit)) if keepalive.idle() > limit => Err(refuse(format!(
                "keepalive ({keepalive}) has a longer idle time than middlebox_timeout, {}: \
                 shorten the idle time",
                Millis(limit)
            ))),
            _ => Ok(Some(keepalive)),
        }
    }
}

impl Keepalive {
    /// Returns values that detect a dead peer after `limit`, in whole seconds, at least 2 s. The
    /// idle time is at most the default, so that firewalls keep the connection.
    fn dead_within(limit: Duration) -> Keepalive {
        let total = limit.as_secs();
        let shortest_idle = (total / 3).clamp(1, 45);
        let probing = total.saturating_sub(shortest_idle).max(1);
        // The remainder of the division is added to the idle time. It is small.
        let counts = probing.min(3)..=probing.min(5);
        let count = counts.min_by_key(|count| (probing % count, Reverse(*count))).unwrap_or(1);
        let interval = (probing / count).clamp(1, MAX_SECONDS);
        let idle = total.saturating_sub(interval * count).clamp(1, MAX_SECONDS);
        Keepalive { idle: idle as u16, interval: interval as u16, count: count as u8 }
    }

    /// Returns values with an idle time of at most half of `limit`, so that the loss of one probe
    /// does no harm. A dead peer is detected as early as before.
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
        _ => {
            let (time, most) = (Millis(time), Millis(Duration::from_secs(MAX_SECONDS)));
            Err(refuse(format!("{name} {time} is not within 1 ms to {most}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// K1: fractions of a second are rounded up.
    #[test]
    fn new_rounds_times_up() {
        let ms = Duration::from_millis;
        let k = Keepalive::new(ms(1), ms(2001), 1).unwrap();
        assert_eq!((k.idle(), k.interval(), k.count()), (ms(1000), ms(3000), 1));
    }

    /// K1: values out of range are rejected.
    #[test]
    fn new_rejects_values_out_of_range() {
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

    /// K3: a vanished idle peer is detected within the time, and less than a second before its end.
    /// Traffic is at least once per minute, for firewalls.
    #[test]
    fn resolve_meets_dead_after() {
        for seconds in (2..400).chain([3600, 100_000]) {
            let limit = Duration::from_secs(seconds);
            let k = KeepaliveSetting::Adapted.resolve(Some(limit), None).unwrap().unwrap();
            assert_eq!(k.dead_after(), limit, "{k}");
            assert!(k.idle() < Duration::from_secs(60), "{k}");
            assert!(k.idle() <= limit / 2, "{k}");
            // The kernel does not count fractions of a second.
            let more = limit + Duration::from_millis(999);
            assert_eq!(KeepaliveSetting::Adapted.resolve(Some(more), None).unwrap(), Some(k));
        }
    }

    /// K4: the loss of one probe does no harm, and a dead peer is detected as early as before.
    #[test]
    fn resolve_meets_middlebox_timeout() {
        for seconds in 2..400 {
            let limit = Duration::from_secs(seconds);
            for dead_after in [None, Some(2), Some(5), Some(60)].map(|t| t.map(Duration::from_secs))
            {
                let k =
                    KeepaliveSetting::Adapted.resolve(dead_after, Some(limit)).unwrap().unwrap();
                assert!(
                    k.idle() + k.interval() <= limit.max(Duration::from_secs(4)),
                    "{k} for {limit:?}"
                );
                assert!(k.idle() <= limit / 2, "{k} for {limit:?}");
                assert!(k.dead_after() <= dead_after.unwrap_or(Duration::from_secs(120)), "{k}");
            }
        }
        let unchanged =
            KeepaliveSetting::Adapted.resolve(None, Some(Duration::from_secs(100))).unwrap();
        assert_eq!(unchanged, Some(Keepalive::default()));
    }

    /// K1, K3, K4: values of the caller are kept or rejected, never changed.
    #[test]
    fn resolve_keeps_or_rejects_own_values() {
        let s = Duration::from_secs;
        let own = Keepalive::new(s(2), s(1), 3).unwrap();
        let fits = KeepaliveSetting::Own(own).resolve(Some(s(5)), Some(s(2)));
        assert_eq!(fits.unwrap(), Some(own));
        for (dead_after, middlebox_timeout) in [(Some(s(4)), None), (None, Some(s(1)))] {
            let err =
                KeepaliveSetting::Own(own).resolve(dead_after, middlebox_timeout).unwrap_err();
            assert_eq!(err.kind(), ErrorKind::InvalidArgument);
            let err = KeepaliveSetting::Off.resolve(dead_after, middlebox_timeout).unwrap_err();
            assert_eq!(err.kind(), ErrorKind::InvalidArgument);
        }
        assert_eq!(KeepaliveSetting::Off.resolve(None, None).unwrap(), None);
    }

    /// K2: a dead idle peer is detected within 120 s.
    #[test]
    fn default_detects_dead_peer_within_two_minutes() {
        assert_eq!(Keepalive::default().dead_after(), Duration::from_secs(120));
    }
}
