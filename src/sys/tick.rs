//! A clock that costs next to nothing to read.

use std::time::Duration;

/// The start time of a call. Linux's coarse clock needs no hardware access; it lags by at most a
/// scheduler tick (10 ms at 100 Hz), so the elapsed time is never overestimated.
#[cfg(keepsock_linux)]
#[derive(Clone, Copy)]
pub(crate) struct Tick(libc::timespec);

#[cfg(keepsock_linux)]
impl Tick {
    pub(crate) const LAG: Duration = Duration::from_millis(10);

    #[cfg(not(keepsock_model))]
    fn read(clock: libc::clockid_t) -> libc::timespec {
        let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: clock_gettime writes one timespec. Both clocks exist since Linux 2.6.32.
        unsafe { libc::clock_gettime(clock, &raw mut now) };
        now
    }

    #[cfg(keepsock_model)]
    fn read(_: libc::clockid_t) -> libc::timespec {
        let time = super::model::now() + Duration::from_secs(1000);
        libc::timespec { tv_sec: time.as_secs() as i64, tv_nsec: time.subsec_nanos().into() }
    }

    #[inline]
    pub(crate) fn now() -> Tick {
        Tick(Tick::read(libc::CLOCK_MONOTONIC_COARSE))
    }

    /// The current time with the resolution of the hardware.
    #[cfg(feature = "serve")]
    pub(crate) fn precise() -> Tick {
        Tick(Tick::read(libc::CLOCK_MONOTONIC))
    }

    fn since_boot(t: libc::timespec) -> Duration {
        Duration::new(t.tv_sec.max(0) as u64, t.tv_nsec.max(0) as u32)
    }

    pub(crate) fn elapsed(self) -> Duration {
        let now = Tick::since_boot(Tick::read(libc::CLOCK_MONOTONIC));
        now.saturating_sub(Tick::since_boot(self.0)).saturating_sub(Tick::LAG)
    }

    /// The time between two ticks, with their precision.
    #[cfg(feature = "serve")]
    #[inline]
    pub(crate) fn since(self, start: Tick) -> Duration {
        Tick::since_boot(self.0).saturating_sub(Tick::since_boot(start.0))
    }
}

#[cfg(not(keepsock_linux))]
#[derive(Clone, Copy)]
pub(crate) struct Tick(std::time::Instant);

#[cfg(not(keepsock_linux))]
impl Tick {
    #[cfg(feature = "serve")]
    pub(crate) const LAG: Duration = Duration::ZERO;

    pub(crate) fn now() -> Tick {
        Tick(std::time::Instant::now())
    }

    #[cfg(feature = "serve")]
    pub(crate) fn precise() -> Tick {
        Tick::now()
    }

    pub(crate) fn elapsed(self) -> Duration {
        self.0.elapsed()
    }

    #[cfg(feature = "serve")]
    pub(crate) fn since(self, start: Tick) -> Duration {
        self.0.saturating_duration_since(start.0)
    }
}
