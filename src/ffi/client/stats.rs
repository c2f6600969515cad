//! Addresses and statistics of a `keepsock_client`.

use std::ffi::c_char;
use std::time::Duration;

use crate::ffi::{
    ErrorOut, Ref, Structure, fill, fill_text, keepsock_client, keepsock_error,
    keepsock_five_tuple, millis, tuple_to_c, versioned,
};
use crate::{ConnectionStats, TcpState};

/// Returns the protocol, the addresses and the ports (getsockname(2), getpeername(2)).
///
/// They stay readable after an error and after close. Names that do not fit are truncated.
///
/// @param out  Receives the five-tuple. Longer names are truncated.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or no version has that size
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_client_five_tuple(
    client: *const keepsock_client,
    out: *mut keepsock_five_tuple,
    size: usize,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `client` during the call; `out` has `size`
    // writable bytes; `error` is NULL or writable.
    let (client, out, error) =
        unsafe { (Ref::new(client), Structure::new(out, size), ErrorOut::new(error)) };
    fill(client, out, error, "five-tuple", |socket| Ok(tuple_to_c(&socket.five_tuple())))
}

/// A snapshot of a connection's statistics (struct tcp_info of tcp(7)).
///
/// A member is -1, or "", if the system or this kind of socket does not report it. For Unix
/// sockets these are all members that describe TCP. Linux reports everything, other systems a
/// part. Times are in microseconds.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct keepsock_connection_stats {
    /// A keepsock_tcp_state, or 0.
    pub tcp_state: i32,
    /// The keepsock_close_reason; 0: no call has observed a cause.
    pub close_reason: i32,
    /// The smoothed round-trip time (RFC 6298).
    pub rtt_us: i64,
    /// The mean deviation of the round-trip time.
    pub rtt_variation_us: i64,
    /// The shortest round-trip time of the last minutes.
    pub min_rtt_us: i64,
    /// The time since data was last sent.
    pub last_sent_us: i64,
    /// The time since a segment, data or ACK, last arrived. On FreeBSD it overflows to zero after 71
    /// minutes.
    pub last_received_us: i64,
    /// Segments retransmitted since the connection was made.
    pub retransmits: i64,
    /// Bytes sent and not acknowledged.
    pub unacknowledged: i64,
    /// Bytes written and not yet sent.
    pub unsent: i64,
    /// Bytes received and not yet read.
    pub unread: i64,
    /// Data bytes sent, including retransmitted bytes.
    pub bytes_sent: i64,
    /// Data bytes received. Linux counts the FIN as one byte.
    pub bytes_received: i64,
    /// Segments sent, including pure ACKs.
    pub segments_sent: i64,
    /// Segments received, including pure ACKs.
    pub segments_received: i64,
    /// The congestion window, in segments.
    pub congestion_window: i64,
    /// The peer's receive window, in bytes; 0: its program does not read.
    pub peer_window: i64,
    /// Heartbeats that this side sent. -1 for a keepsock_conn: event loops do not count them.
    pub heartbeats: i64,
    /// The congestion control algorithm: "cubic", "bbr".
    pub congestion_control: [c_char; 16],
    /// The TCP user timeout (TCP_USER_TIMEOUT) in milliseconds; -1: none. It is the time that data may
    /// stay unacknowledged, and keepsock_options_set_fail_on_stall() sets it.
    pub user_timeout_ms: i64,
    /// The maximum segment size for sending, in bytes.
    pub mss: i32,
    /// Whether the connection uses Multipath TCP. Linux 5.16 and later report it, other systems and
    /// closed connections return false.
    pub is_mptcp: bool,
}

versioned!(keepsock_connection_stats: 168);

pub(crate) fn optional_to_c(n: Option<impl Into<u64>>) -> i64 {
    n.map_or(-1, |n| i64::try_from(n.into()).unwrap_or(i64::MAX))
}

fn micros(time: Option<Duration>) -> i64 {
    time.map_or(-1, crate::ffi::micros)
}

pub(crate) fn snapshot_to_c(s: &ConnectionStats) -> keepsock_connection_stats {
    let mut value = keepsock_connection_stats {
        tcp_state: s.tcp_state.map_or(0, |state| state as i32),
        close_reason: s.close_reason.map_or(0, |reason| reason as i32),
        rtt_us: micros(s.rtt),
        rtt_variation_us: micros(s.rtt_variation),
        min_rtt_us: micros(s.min_rtt),
        last_sent_us: micros(s.last_sent),
        last_received_us: micros(s.last_received),
        retransmits: optional_to_c(s.retransmits),
        unacknowledged: optional_to_c(s.unacknowledged),
        unsent: optional_to_c(s.unsent),
        unread: optional_to_c(s.unread),
        bytes_sent: optional_to_c(s.bytes_sent),
        bytes_received: optional_to_c(s.bytes_received),
        segments_sent: optional_to_c(s.segments_sent),
        segments_received: optional_to_c(s.segments_received),
        mss: s.mss.and_then(|n| i32::try_from(n).ok()).unwrap_or(-1),
        congestion_window: optional_to_c(s.congestion_window),
        peer_window: optional_to_c(s.peer_window),
        heartbeats: optional_to_c(s.heartbeats),
        congestion_control: [0; 16],
        user_timeout_ms: s.user_timeout.map_or(-1, millis),
        is_mptcp: s.is_mptcp,
    };
    let congestion_control = s.congestion_control.as_deref().unwrap_or("");
    fill_text(&mut value.congestion_control, congestion_control);
    value
}

/// Returns a snapshot of the connection's statistics.
///
/// After an error, and after close with keepsock_options_set_keep_stats(), it is the last snapshot.
/// Otherwise a closed connection has only the close reason and the state KEEPSOCK_TCP_STATE_CLOSED.
///
/// @param client  A connection, which may be closed.
/// @param out     Receives the statistics.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or no version has that size
///   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
///   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_client_get_stats(
    client: *const keepsock_client,
    out: *mut keepsock_connection_stats,
    size: usize,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `client` during the call; `out` has `size`
    // writable bytes; `error` is NULL or writable.
    let (client, out, error) =
        unsafe { (Ref::new(client), Structure::new(out, size), ErrorOut::new(error)) };
    fill(client, out, error, "statistics", |socket| Ok(snapshot_to_c(&socket.stats()?)))
}

/// Returns the name of a TCP state in RFC 9293: "SYN-SENT".
///
/// @param state  A keepsock_tcp_state.
/// @return A static string: "UNKNOWN" for other numbers.
#[unsafe(no_mangle)]
pub extern "C" fn keepsock_tcp_state_str(state: i32) -> *const c_char {
    let known = STATES.iter().find(|(known, _)| *known as i32 == state);
    known.map_or(c"UNKNOWN", |(_, name)| *name).as_ptr()
}

const STATES: [(TcpState, &std::ffi::CStr); 11] = [
    (TcpState::Established, c"ESTABLISHED"),
    (TcpState::SynSent, c"SYN-SENT"),
    (TcpState::SynReceived, c"SYN-RECEIVED"),
    (TcpState::FinWait1, c"FIN-WAIT-1"),
    (TcpState::FinWait2, c"FIN-WAIT-2"),
    (TcpState::TimeWait, c"TIME-WAIT"),
    (TcpState::Closed, c"CLOSED"),
    (TcpState::CloseWait, c"CLOSE-WAIT"),
    (TcpState::LastAck, c"LAST-ACK"),
    (TcpState::Listen, c"LISTEN"),
    (TcpState::Closing, c"CLOSING"),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// S5: one list of names for Rust and C.
    #[test]
    fn states_have_the_names_of_the_rfc() {
        for (state, name) in STATES {
            assert_eq!(name.to_str().unwrap(), state.to_string());
        }
        let numbers: std::collections::BTreeSet<_> = STATES.iter().map(|s| s.0 as i32).collect();
        assert_eq!(numbers, (1..=11).collect(), "each once");
    }
}
