//! `keepsock_client`: staying alive, how a connection ended, snapshots.

use std::ffi::c_char;
use std::time::Duration;

use super::client::with;
use super::{
    KEEPSOCK_INFINITE, fill_text, handle, keepsock_client, keepsock_error, millis, output, shield,
    write_sized,
};
use crate::{ClientSocket, End, Snapshot};

/// What is known of a connection at one moment. -1, or "", is what the system, or this
/// kind of socket, does not tell: for Unix sockets all that is TCP's. Linux tells everything
/// (tcp(7), TCP_INFO), others a part. Times are microseconds.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct keepsock_snapshot {
    /// A value of enum keepsock_tcp_state, or 0.
    pub state: i32,
    /// Why the connection ended, a value of enum keepsock_end; 0: it lives.
    pub end: i32,
    /// The smoothed round-trip time (RFC 6298).
    pub rtt_us: i64,
    /// Its mean deviation.
    pub rtt_variation_us: i64,
    /// The shortest round trip that was seen lately.
    pub min_rtt_us: i64,
    /// How long ago data was sent last.
    pub last_sent_us: i64,
    /// How long ago the last segment came, be it data or an ACK.
    pub last_received_us: i64,
    /// Segments that were sent again, in the connection's life.
    pub retransmits: i64,
    /// Bytes on their way: sent and not acknowledged.
    pub unacknowledged: i64,
    /// Bytes that were written and wait to be sent.
    pub unsent: i64,
    /// Bytes that came and wait to be read.
    pub unread: i64,
    /// Data bytes sent, repeated ones included.
    pub bytes_sent: i64,
    /// Data bytes received; Linux counts the FIN as one.
    pub bytes_received: i64,
    /// Segments sent, with those that only acknowledge.
    pub segments_sent: i64,
    /// Segments received, with those that only acknowledge.
    pub segments_received: i64,
    /// The largest segment that is sent, in bytes.
    pub mss: i64,
    /// How many segments may be on their way.
    pub congestion_window: i64,
    /// How many bytes the peer takes; 0: its program does not read.
    pub peer_window: i64,
    /// Heartbeats that this side sent.
    pub heartbeats: i64,
    /// The algorithm that minds congestion: "cubic", "bbr".
    pub congestion_control: [c_char; 16],
}

pub(super) fn number(n: Option<impl Into<u64>>) -> i64 {
    n.map_or(-1, |n| i64::try_from(n.into()).unwrap_or(i64::MAX))
}

fn micros(time: Option<Duration>) -> i64 {
    time.map_or(-1, |t| i64::try_from(t.as_micros()).unwrap_or(i64::MAX))
}

pub(super) fn snapshot_to_c(s: &Snapshot) -> keepsock_snapshot {
    let mut value = keepsock_snapshot {
        state: s.state.map_or(0, |state| state as i32),
        end: s.end.map_or(0, |end| end as i32),
        rtt_us: micros(s.rtt),
        rtt_variation_us: micros(s.rtt_variation),
        min_rtt_us: micros(s.min_rtt),
        last_sent_us: micros(s.last_sent),
        last_received_us: micros(s.last_received),
        retransmits: number(s.retransmits),
        unacknowledged: number(s.unacknowledged),
        unsent: number(s.unsent),
        unread: number(s.unread),
        bytes_sent: number(s.bytes_sent),
        bytes_received: number(s.bytes_received),
        segments_sent: number(s.segments_sent),
        segments_received: number(s.segments_received),
        mss: number(s.mss),
        congestion_window: number(s.congestion_window),
        peer_window: number(s.peer_window),
        heartbeats: number(Some(s.heartbeats)),
        congestion_control: [0; 16],
    };
    let congestion_control = s.congestion_control.as_deref().unwrap_or("");
    fill_text(&mut value.congestion_control, congestion_control);
    value
}

/// Does what is due to keep the connection alive, and says in what time to call again at
/// the latest. For programs that do not wait in keepsock's calls, in non-blocking mode or with
/// the connection idle: calls that wait do all of this by themselves. A heartbeat is sent, if
/// its time has come and nobody is writing; a peer that is dead by
/// keepsock_options_set_dead_after(), and one that was silent for
/// keepsock_options_set_idle_limit(), is reported.
///
/// @param client   A connection.
/// @param next_ms  Receives milliseconds; KEEPSOCK_INFINITE: nothing ever is due.
/// @param error    See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK; KEEPSOCK_ERR_DEAD, _UNREACHABLE, _IDLE_LIMIT,
///         _HEARTBEAT_MISSED, _STALLED, _RESET: it is over; _CLOSED, _INVALID_ARGUMENT, _OS.
///         Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_client_check_alive(
    client: *mut keepsock_client,
    next_ms: *mut i64,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "check";
    let body = |socket: &ClientSocket| {
        let out = output(next_ms, OPERATION, "next_ms")?;
        let next = socket.check_alive()?.map_or(KEEPSOCK_INFINITE, millis);
        // SAFETY: not null, and writable as the header asks.
        unsafe { out.write(next) };
        Ok(())
    };
    // SAFETY: as the header asks.
    unsafe { with(client, error, OPERATION, body) }
}

/// Why the connection ended, as far as calls on it have met it. Stays after close.
///
/// @param client  A connection, or NULL: 0.
/// @return A value of enum keepsock_end; 0: it lives. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_client_end(client: *const keepsock_client) -> i32 {
    // SAFETY: null, or live as the header asks.
    let Some(client) = (unsafe { handle::get(client) }) else {
        return 0;
    };
    shield(0, || client.socket().end().map_or(0, |end| end as i32))
}

/// The words for why a connection ended: "reset by peer".
///
/// @param end  A value of enum keepsock_end.
/// @return A static string; "" for other numbers. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn keepsock_end_text(end: i32) -> *const c_char {
    let text = match End::from_number(end) {
        None => c"",
        Some(End::ClosedByPeer) => c"closed by peer",
        Some(End::ResetByPeer) => c"reset by peer",
        Some(End::Dead) => c"peer is dead",
        Some(End::Unreachable) => c"peer is unreachable",
        Some(End::Stalled) => c"peer takes no data",
        Some(End::IdleLimit) => c"idle limit",
        Some(End::HeartbeatMissed) => c"heartbeat missed",
        Some(End::Cancelled) => c"cancelled",
        Some(End::TooLong) => c"message too long",
        Some(End::Overrun) => c"did not keep up",
        Some(End::ClosedHere) => c"closed here",
    };
    text.as_ptr()
}

/// What is known of the connection now: state, times, bytes on their way, counters. After it
/// ended by an error, and after close if keepsock_options_set_last_snapshot() asked for it, it
/// is the last copy; otherwise what is known without the kernel: end, and the state CLOSED.
///
/// @param client  A connection; closed ones too.
/// @param out     Filled in on success.
/// @param size    sizeof *out.
/// @param error   See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT; _UNSUPPORTED or _OS if the
///         system does not tell. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_client_snapshot(
    client: *const keepsock_client,
    out: *mut keepsock_snapshot,
    size: usize,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "snapshot";
    let body = |socket: &ClientSocket| {
        let value = snapshot_to_c(&socket.snapshot()?);
        // SAFETY: out has `size` bytes as the header asks.
        unsafe { write_sized(out, size, &value, OPERATION) }
    };
    // SAFETY: as the header asks.
    unsafe { with(client, error, OPERATION, body) }
}

/// The TCP state, by its name in RFC 9293: keepsock_tcp_state_name(). CLOSED after close.
///
/// @param client  A connection.
/// @param state   Receives a value of enum keepsock_tcp_state.
/// @param error   See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT; _UNSUPPORTED for a Unix socket,
///         and where the system does not tell; _OS. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_client_state(
    client: *const keepsock_client,
    state: *mut i32,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "state";
    let body = |socket: &ClientSocket| {
        let out = output(state, OPERATION, "state")?;
        let state = socket.state()?;
        // SAFETY: not null, and writable as the header asks.
        unsafe { out.write(state as i32) };
        Ok(())
    };
    // SAFETY: as the header asks.
    unsafe { with(client, error, OPERATION, body) }
}

/// The user timeout that the kernel keeps (RFC 9293 section 3.8.3): for how long data may
/// stay unacknowledged, or not be taken. Set by keepsock_options_set_end_stalled().
///
/// @param client      A connection.
/// @param timeout_ms  Receives milliseconds; KEEPSOCK_INFINITE: none is set.
/// @param error       See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, KEEPSOCK_ERR_CLOSED, _INVALID_ARGUMENT; _UNSUPPORTED for a Unix
///         socket, and on macOS; _OS. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_client_user_timeout(
    client: *const keepsock_client,
    timeout_ms: *mut i64,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "user timeout";
    let body = |socket: &ClientSocket| {
        let out = output(timeout_ms, OPERATION, "timeout_ms")?;
        let timeout = socket
            .user_timeout()?
            .map_or(KEEPSOCK_INFINITE, |time| i64::try_from(time.as_millis()).unwrap_or(i64::MAX));
        // SAFETY: not null, and writable as the header asks.
        unsafe { out.write(timeout) };
        Ok(())
    };
    // SAFETY: as the header asks.
    unsafe { with(client, error, OPERATION, body) }
}

/// Whether it is a Multipath TCP connection: both sides knew it, and so did everything on the way.
/// Linux 5.16 and later can tell; elsewhere no.
///
/// @param client  A connection, or NULL: no.
/// @return Whether it is; closed ones are not. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_client_is_mptcp(client: *const keepsock_client) -> bool {
    // SAFETY: null, or live as the header asks.
    let Some(client) = (unsafe { handle::get(client) }) else {
        return false;
    };
    shield(false, || client.socket().is_mptcp().unwrap_or(false))
}
