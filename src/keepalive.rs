//! TCP keepalive: how the network is told that an idle connection lives.

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

    /// K2: a dead idle peer is known in 120 s.
    #[test]
    fn the_default_knows_a_dead_peer_in_two_minutes() {
        assert_eq!(Keepalive::default().dead_after(), Duration::from_secs(120));
    }
}
