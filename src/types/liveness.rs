//! The configuration of liveness checks, and the kernel's data for them.

use std::sync::Arc;
use std::time::Duration;

use crate::types::error::{Error, ErrorKind, Millis, Result};

/// The shortest `dead_after` and `middlebox_timeout`. The kernel's keepalive counts whole seconds
/// and needs one to send a probe and one for the answer.
pub(crate) const SHORTEST: Duration = Duration::from_secs(2);
/// The longest `dead_after` and `middlebox_timeout`: 45 s and five of the longest keepalive
/// intervals.
pub(crate) const LONGEST: Duration = Duration::from_secs(45 + 5 * 32_767);

/// The heartbeat of a connection: bytes that show the peer's program, and every proxy on the way,
/// that this side is alive.
#[derive(Debug, Clone)]
pub(crate) struct Heartbeat {
    pub bytes: Arc<Vec<u8>>,
    pub every: Duration,
}

/// The liveness options of a socket.
#[derive(Debug, Clone, Default)]
pub(crate) struct LivenessConfig {
    pub dead_after: Option<Duration>,
    /// A living peer that reads no data for `dead_after` ends the connection as well.
    pub fail_on_stall: bool,
    pub middlebox_timeout: Option<Duration>,
    pub heartbeat: Option<Heartbeat>,
    /// The peer's program must send something within this time after a heartbeat.
    pub heartbeat_timeout: Option<Duration>,
    pub idle_timeout: Option<Duration>,
    /// Only received data restarts the idle timeout.
    pub idle_receive_only: bool,
    /// Replaces the idle timeout until the first byte is received.
    pub first_byte_timeout: Option<Duration>,
}

/// The operation that changes the heartbeat of an open connection.
pub(crate) const HEARTBEAT: &str = "heartbeat";

impl LivenessConfig {
    /// Whether the kernel alone does all that is configured.
    #[inline]
    pub(crate) fn is_plain(&self) -> bool {
        self.dead_after.is_none()
            && self.middlebox_timeout.is_none()
            && self.heartbeat.is_none()
            && self.idle_timeout.is_none()
            && self.first_byte_timeout.is_none()
    }

    pub(crate) fn validate(&self, operation: &'static str) -> Result<()> {
        let refuse =
            |what: String| Err(Error::new(ErrorKind::InvalidArgument, operation).detail(what));
        for (name, time) in
            [("dead_after", self.dead_after), ("middlebox_timeout", self.middlebox_timeout)]
        {
            if let Some(time) = time.filter(|t| !(SHORTEST..=LONGEST).contains(t)) {
                let (least, most) = (Millis(SHORTEST), Millis(LONGEST));
                let time = Millis(time);
                return refuse(format!("{name} {time} is not within {least} to {most}"));
            }
        }
        if self.fail_on_stall && self.dead_after.is_none() {
            return refuse("fail_on_stall needs dead_after: set dead_after".to_owned());
        }
        let zero = |time: Option<Duration>| time.is_some_and(|t| t.is_zero());
        if zero(self.idle_timeout) {
            return refuse("idle_timeout must be greater than zero".to_owned());
        }
        if zero(self.first_byte_timeout) {
            return refuse("first_byte_timeout must be greater than zero".to_owned());
        }
        if zero(self.heartbeat_timeout) {
            return refuse("heartbeat_timeout must be greater than zero".to_owned());
        }
        if self.idle_receive_only && self.idle_timeout.is_none() {
            return refuse("idle_receive_only needs idle_timeout: set idle_timeout".to_owned());
        }
        if self.heartbeat_timeout.is_some() && self.heartbeat.is_none() {
            // The call that turns the heartbeat of an open connection off.
            let remedy = if operation == HEARTBEAT {
                "turn heartbeat_timeout off first"
            } else {
                "set heartbeat first"
            };
            return refuse(format!("heartbeat_timeout needs heartbeat: {remedy}"));
        }
        match &self.heartbeat {
            Some(heartbeat) if heartbeat.bytes.is_empty() => {
                refuse("heartbeat has no bytes: give the bytes to send".to_owned())
            }
            Some(heartbeat) if heartbeat.every.is_zero() => {
                refuse("heartbeat interval must be greater than zero".to_owned())
            }
            Some(Heartbeat { every, .. }) => match self.idle_timeout.filter(|t| t <= every) {
                Some(timeout) => refuse(format!(
                    "idle_timeout {} must be greater than the heartbeat interval, {}",
                    Millis(timeout),
                    Millis(*every)
                )),
                None => Ok(()),
            },
            None => Ok(()),
        }
    }

    /// The time after which the kernel closes a connection whose peer acknowledges no data, also if
    /// the peer lives and its receive window is full.
    pub(crate) fn strict(&self) -> Option<Duration> {
        self.dead_after.filter(|_| self.fail_on_stall)
    }

    /// Whether a timer depends on when data was received or sent.
    pub(crate) fn has_limits(&self) -> bool {
        self.heartbeat.is_some() || self.idle_timeout.is_some() || self.first_byte_timeout.is_some()
    }

    /// Whether sent data restarts the idle timeout.
    pub(crate) fn counts_sent(&self) -> bool {
        self.idle_timeout.is_some() && !self.idle_receive_only
    }

    /// Whether a write has to record its time.
    #[cfg(feature = "serve")]
    #[inline]
    pub(crate) fn stamps_writes(&self) -> bool {
        self.heartbeat.is_some() || self.counts_sent()
    }
}

/// The kernel's report on the data that was sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Acknowledged {
    /// The number of bytes that the peer's kernel has acknowledged since the connection was
    /// established.
    pub bytes: u64,
    /// Some bytes were sent and are not acknowledged.
    pub in_flight: bool,
    /// Some bytes are not acknowledged, or not sent yet.
    pub outstanding: bool,
    /// The time since the last acknowledgment, which may answer a keepalive or window probe.
    pub heard: Duration,
    /// The time since the last segment with data was sent.
    pub sent: Duration,
    /// The round-trip time.
    pub rtt: Duration,
}

/// The kernel's report on a peer that may have vanished.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Silence {
    /// The time since the last segment arrived.
    pub heard: Duration,
    /// Data or a probe was sent and is not acknowledged.
    pub owes: bool,
    /// The round-trip time.
    pub rtt: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn validate_rejects_options_that_contradict() {
        let second = Some(Duration::from_secs(1));
        let heartbeat =
            |bytes: &[u8], every| Some(Heartbeat { bytes: Arc::new(bytes.to_vec()), every });
        let zero = Some(Duration::ZERO);
        let none = LivenessConfig::default;
        for config in [
            LivenessConfig { dead_after: second, ..none() },
            LivenessConfig { middlebox_timeout: Some(Duration::from_millis(1999)), ..none() },
            LivenessConfig { dead_after: Some(LONGEST + Duration::from_secs(1)), ..none() },
            LivenessConfig { fail_on_stall: true, ..none() },
            LivenessConfig { idle_timeout: zero, ..none() },
            LivenessConfig { first_byte_timeout: zero, ..none() },
            LivenessConfig { heartbeat: heartbeat(b"b", Duration::ZERO), ..none() },
            LivenessConfig {
                heartbeat: heartbeat(b"b", Duration::from_secs(1)),
                idle_timeout: second,
                ..none()
            },
            LivenessConfig { heartbeat_timeout: second, ..none() },
            LivenessConfig {
                heartbeat: heartbeat(b"b", Duration::from_secs(1)),
                heartbeat_timeout: zero,
                ..none()
            },
            LivenessConfig { idle_receive_only: true, ..none() },
            LivenessConfig { heartbeat: heartbeat(b"", Duration::from_secs(1)), ..none() },
        ] {
            let error = config.validate("test").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{config:?}");
        }
    }
}
