//! Keepalive and `dead_after` of an open connection, for [`ClientSocket`](super::ClientSocket) and for
//! the connections of a service.

use std::time::Duration;

use crate::io::wait::Cause;
use crate::options::SocketOptions;
use crate::sys::sync::atomic::{AtomicU64, Ordering};
use crate::sys::{self, Borrowed};
use crate::types::error::{Error, ErrorKind, Result};
use crate::types::keepalive::{Keepalive, KeepaliveSetting};
use crate::types::liveness::LivenessConfig;

/// The keepalive values that this library has set on a socket, if it has set them.
#[derive(Debug)]
pub(super) struct KeepaliveCell(AtomicU64);

const UNKNOWN: u64 = 0;
const OFF: u64 = 1;
const ON: u64 = 2;

fn pack(keepalive: Option<Keepalive>) -> u64 {
    match keepalive {
        None => OFF,
        Some(k) => {
            ON | u64::from(k.count()) << 8 | k.interval().as_secs() << 16 | k.idle().as_secs() << 32
        }
    }
}

impl KeepaliveCell {
    /// The values that the options have set.
    #[inline]
    pub(super) fn new(options: &SocketOptions) -> KeepaliveCell {
        let is_default = options.keepalive == KeepaliveSetting::Adapted
            && options.liveness.dead_after.is_none()
            && options.liveness.middlebox_timeout.is_none();
        KeepaliveCell(AtomicU64::new(match is_default {
            true => ON | 5 << 8 | 15 << 16 | 45 << 32,
            false => options.effective_keepalive().map_or(UNKNOWN, pack),
        }))
    }

    /// An accepted connection has the values of its listener, which another process may have set.
    #[inline]
    pub(super) fn unknown() -> KeepaliveCell {
        KeepaliveCell(AtomicU64::new(UNKNOWN))
    }

    /// `None`: the values are not known.
    pub(super) fn get(&self) -> Option<Option<Keepalive>> {
        match self.0.load(Ordering::Relaxed) {
            UNKNOWN => None,
            OFF => Some(None),
            packed => {
                let second = |shift: u32| Duration::from_secs(packed >> shift & 0x7fff);
                Keepalive::new(second(32), second(16), (packed >> 8 & 0x7f) as u32).ok().map(Some)
            }
        }
    }

    pub(super) fn set(&self, keepalive: Option<Keepalive>) {
        self.0.store(pack(keepalive), Ordering::Relaxed);
    }
}

/// Returns the keepalive values for a new `dead_after`. Values of the program stay; the others are
/// adapted.
pub(crate) fn adapted(
    config: &LivenessConfig,
    time: Option<Duration>,
    current: Option<Keepalive>,
) -> Result<Option<Keepalive>> {
    let adapted = KeepaliveSetting::Adapted.resolve(config.dead_after, config.middlebox_timeout)?;
    // Values that differ from the adapted values were set by the program.
    let setting = match current {
        None => KeepaliveSetting::Off,
        adapts if adapts == adapted => KeepaliveSetting::Adapted,
        Some(own) => KeepaliveSetting::Own(own),
    };
    setting.resolve(time, config.middlebox_timeout)
}

/// Rejects `dead_after` for Multipath TCP, where one path may be silent while the peer is alive.
pub(crate) fn refuse_mptcp(socket: Borrowed<'_>, time: Option<Duration>) -> Result<()> {
    if time.is_some() && sys::is_made_for_mptcp(socket) {
        let what = "dead_after checks one path, and an MPTCP connection has several";
        return Err(Error::new(ErrorKind::InvalidArgument, "").detail(what));
    }
    Ok(())
}

/// Sets keepalive and the limits of `dead_after`. On failure the keepalive values are restored.
pub(crate) fn apply_dead_after(
    socket: Borrowed<'_>,
    config: &LivenessConfig,
    time: Option<Duration>,
    (current, new): (Option<Keepalive>, Option<Keepalive>),
) -> std::result::Result<(), Cause> {
    let set = || {
        sys::change_keepalive(socket, current, new)?;
        match time {
            Some(time) => sys::set_dead_after(socket, time, config.fail_on_stall),
            None => sys::unset_dead_after(socket),
        }
    };
    set().map_err(|e| {
        let _ = sys::set_keepalive(socket, current);
        e.into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// K1: the cell returns the values that it was given.
    #[test]
    fn cell_keeps_values() {
        let cell = KeepaliveCell::new(&SocketOptions::new());
        assert_eq!(cell.get(), Some(Some(Keepalive::default())));
        let largest = Duration::from_secs(32_767);
        for keepalive in [None, Keepalive::new(largest, Duration::from_secs(1), 127).ok()] {
            cell.set(keepalive);
            assert_eq!(cell.get(), Some(keepalive));
            let options = SocketOptions::new().keepalive(keepalive);
            assert_eq!(KeepaliveCell::new(&options).get(), Some(keepalive));
        }
    }
}
