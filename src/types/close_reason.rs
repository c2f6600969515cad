//! Why a connection ended.

#[cfg(feature = "serve")]
use crate::types::error::ErrorKind;

/// Why a connection ended: the first cause that was observed. After the peer has closed its side
/// (FIN) a later failure replaces the reason, because this side may still send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
#[repr(i32)]
pub enum CloseReason {
    /// The peer closed its side (FIN). Bytes that it sent before are still readable.
    #[error("closed by peer")]
    PeerClosed = 1,
    /// The peer, or a device on the path, reset the connection (RST), or a write failed because the
    /// peer had closed its socket. It replaces the reason "closed by peer" if it follows the peer's
    /// FIN: the peer may not have received all written bytes. The bytes and the end of the stream that
    /// it sent before stay readable.
    #[error("reset by peer")]
    PeerReset = 2,
    /// The peer did not answer keepalive probes or acknowledge data.
    #[error("peer is dead")]
    Dead = 3,
    /// The peer did not answer, and the network reported that it cannot be reached.
    #[error("peer is unreachable")]
    Unreachable = 4,
    /// The peer's kernel answers, but its program accepted no data for `dead_after`, with
    /// `fail_on_stall`.
    #[error("peer takes no data")]
    Stalled = 5,
    /// The idle timeout or the first-byte timeout expired, or the PROXY header did not arrive within
    /// the [`proxy_timeout`](crate::SocketOptions::proxy_timeout).
    #[error("idle timeout")]
    IdleTimeout = 6,
    /// The peer did not answer a heartbeat within the heartbeat timeout.
    #[error("heartbeat timeout")]
    HeartbeatTimeout = 7,
    /// This program closed the connection while its cancel token was fired.
    #[error("cancelled")]
    Cancelled = 8,
    /// This program closed or aborted the connection, released its descriptor, or ended its service.
    #[error("closed locally")]
    Local = 9,
    /// The peer sent a message that is longer than the framing of the service permits.
    #[error("message too long")]
    MessageTooLong = 10,
    /// The peer read too slowly: the send queue exceeded its limit.
    #[error("slow consumer")]
    SlowConsumer = 11,
    /// The peer sent a message with a length that is malformed in the framing of the service, or a
    /// trusted proxy sent no valid PROXY header.
    #[error("malformed message")]
    MessageMalformed = 12,
    /// A file that the program sends has become shorter, or cannot be read, after a part of it was
    /// sent. The service resets the connection.
    #[error("file cannot be sent")]
    FileFailed = 13,
    /// This program has taken the connection out of its service, and continues it.
    #[error("detached")]
    Detached = 14,
}

impl CloseReason {
    pub(crate) fn from_number(number: i32) -> Option<CloseReason> {
        use CloseReason::*;
        let all = [
            PeerClosed,
            PeerReset,
            Dead,
            Unreachable,
            Stalled,
            IdleTimeout,
            HeartbeatTimeout,
            Cancelled,
            Local,
            MessageTooLong,
            SlowConsumer,
            MessageMalformed,
            FileFailed,
            Detached,
        ];
        all.into_iter().find(|reason| *reason as i32 == number)
    }

    /// Whether this reason may end a connection after the peer has closed its side.
    pub(crate) fn follows_fin(self) -> bool {
        matches!(
            self,
            CloseReason::PeerReset
                | CloseReason::Dead
                | CloseReason::Unreachable
                | CloseReason::Stalled
                | CloseReason::IdleTimeout
        )
    }

    /// The kind of the error that calls return after the connection has ended for this reason.
    #[cfg(feature = "serve")]
    pub(crate) fn kind(self) -> ErrorKind {
        match self {
            CloseReason::PeerClosed => ErrorKind::EndOfStream,
            CloseReason::PeerReset => ErrorKind::Reset,
            CloseReason::Dead => ErrorKind::Dead,
            CloseReason::Unreachable => ErrorKind::Unreachable,
            CloseReason::Stalled => ErrorKind::Stalled,
            CloseReason::IdleTimeout => ErrorKind::IdleTimeout,
            CloseReason::HeartbeatTimeout => ErrorKind::HeartbeatTimeout,
            CloseReason::Cancelled
            | CloseReason::Local
            | CloseReason::FileFailed
            | CloseReason::Detached => ErrorKind::Closed,
            CloseReason::MessageTooLong => ErrorKind::TooLong,
            CloseReason::SlowConsumer => ErrorKind::Stalled,
            CloseReason::MessageMalformed => ErrorKind::Malformed,
        }
    }
}

#[cfg(all(test, feature = "serve"))]
mod tests {
    use super::*;

    /// K7: a call on a connection that has ended returns the error of its close reason.
    #[test]
    fn kind_of_each_close_reason_is_its_error() {
        for (reason, kind) in [
            (CloseReason::PeerClosed, ErrorKind::EndOfStream),
            (CloseReason::PeerReset, ErrorKind::Reset),
            (CloseReason::Dead, ErrorKind::Dead),
            (CloseReason::Unreachable, ErrorKind::Unreachable),
            (CloseReason::Stalled, ErrorKind::Stalled),
            (CloseReason::IdleTimeout, ErrorKind::IdleTimeout),
            (CloseReason::HeartbeatTimeout, ErrorKind::HeartbeatTimeout),
            (CloseReason::Cancelled, ErrorKind::Closed),
            (CloseReason::Local, ErrorKind::Closed),
            (CloseReason::FileFailed, ErrorKind::Closed),
            (CloseReason::Detached, ErrorKind::Closed),
            (CloseReason::MessageTooLong, ErrorKind::TooLong),
            (CloseReason::SlowConsumer, ErrorKind::Stalled),
            (CloseReason::MessageMalformed, ErrorKind::Malformed),
        ] {
            assert_eq!(reason.kind(), kind, "{reason}");
        }
    }
}
