//! `keepsock_capture` and `keepsock_handshake`; the SYN of a connection.

use std::ffi::{CString, c_char};
use std::time::UNIX_EPOCH;

use super::handle::{Handle, Pool, Pooled};
use super::{
    Result, c_string, fill_text, guard, handle, invalid, keepsock_client, keepsock_error, live,
    output, timeout, write_sized,
};
use crate::{Capture, FiveTuple, Handshake, Segment, TcpState};

/// For keepsock_segment.flags: the sender has no more to send.
pub const KEEPSOCK_TCP_FIN: u8 = 0x01;
/// For keepsock_segment.flags: seq is the sender's initial sequence number.
pub const KEEPSOCK_TCP_SYN: u8 = 0x02;
/// For keepsock_segment.flags: the connection is reset.
pub const KEEPSOCK_TCP_RST: u8 = 0x04;
/// For keepsock_segment.flags: what was sent so far is to be handed to the program.
pub const KEEPSOCK_TCP_PSH: u8 = 0x08;
/// For keepsock_segment.flags: ack means something.
pub const KEEPSOCK_TCP_ACK: u8 = 0x10;
/// For keepsock_segment.flags: urgent means something.
pub const KEEPSOCK_TCP_URG: u8 = 0x20;
/// For keepsock_segment.flags: congestion was marked; in a SYN: the sender knows ECN.
pub const KEEPSOCK_TCP_ECE: u8 = 0x40;
/// For keepsock_segment.flags: the sender has slowed down; in a SYN: it knows ECN.
pub const KEEPSOCK_TCP_CWR: u8 = 0x80;

/// One TCP segment with what its IP header says (RFC 9293, RFC 791, RFC 8200).
#[repr(C)]
#[derive(Clone, Copy)]
pub struct keepsock_segment {
    /// When it passed, in microseconds since 1970 (UTC); 0 if that is not known, as of a SYN that
    /// the kernel kept, and of packets in the first moments of a capture.
    pub captured_us: i64,
    /// The sequence number; in a SYN the sender's initial one.
    pub seq: u32,
    /// The acknowledgment number; means something if flags has KEEPSOCK_TCP_ACK.
    pub ack: u32,
    /// How many bytes of data it carries.
    pub payload_len: u32,
    /// The sender's clock (RFC 7323), if has_timestamps.
    pub timestamp: u32,
    /// The peer's clock as the sender heard it last, if has_timestamps; 0 in a SYN.
    pub timestamp_echo: u32,
    /// The window as it stands in the header, not scaled.
    pub window: u16,
    /// The urgent pointer; means something if flags has KEEPSOCK_TCP_URG.
    pub urgent: u16,
    /// The largest segment that the sender takes; 0: it does not say.
    pub mss: u16,
    /// The sender's port.
    pub source_port: u16,
    /// The receiver's port.
    pub destination_port: u16,
    /// By how many bits the sender's windows are to be shifted; -1: it does not scale them.
    pub window_scale: i16,
    /// KEEPSOCK_TCP_SYN and the like, as in the header.
    pub flags: u8,
    /// 4 or 6.
    pub ip_version: u8,
    /// IPv4's time to live, IPv6's hop limit: what was left of it.
    pub ttl: u8,
    /// IPv4's type of service, IPv6's traffic class: DSCP, and in the lowest two bits ECN.
    pub traffic_class: u8,
    /// Whether routers may not cut it to pieces: IPv4's DF; always in IPv6.
    pub dont_fragment: bool,
    /// Whether the sender knows selective acknowledgments (RFC 2018).
    pub sack_permitted: bool,
    /// Whether it has timestamps.
    pub has_timestamps: bool,
    /// How many bytes of options are used.
    pub options_len: u8,
    /// The options as they stand in the header, in their order, padding included.
    pub options: [u8; 40],
    /// The sender's address without port.
    pub source_address: [c_char; 48],
    /// The receiver's address without port.
    pub destination_address: [c_char; 48],
    /// All of it as "tcpdump -n -S -t" prints it: "IP 127.0.0.1.40000 > 127.0.0.1.80:
    /// Flags [S], seq 1, win 65495, options [mss 65495,sackOK,TS val 1 ecr 0,nop,wscale 7],
    /// length 0".
    pub line: [c_char; 512],
}

impl From<&Segment> for keepsock_segment {
    fn from(segment: &Segment) -> keepsock_segment {
        let since = segment.captured.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let (value, echo) = segment.timestamps().unwrap_or((0, 0));
        let mut made = keepsock_segment {
            captured_us: since.map_or(0, |t| i64::try_from(t.as_micros()).unwrap_or(0)),
            seq: segment.seq,
            ack: segment.ack,
            payload_len: segment.payload_len,
            timestamp: value,
            timestamp_echo: echo,
            window: segment.window,
            urgent: segment.urgent,
            mss: segment.mss().unwrap_or(0),
            source_port: segment.source.port(),
            destination_port: segment.destination.port(),
            window_scale: segment.window_scale().map_or(-1, i16::from),
            flags: segment.flags.bits(),
            ip_version: if segment.source.is_ipv4() { 4 } else { 6 },
            ttl: segment.ttl,
            traffic_class: segment.traffic_class,
            dont_fragment: segment.dont_fragment,
            sack_permitted: segment.sack_permitted(),
            has_timestamps: segment.timestamps().is_some(),
            options_len: 0,
            options: [0; 40],
            source_address: [0; 48],
            destination_address: [0; 48],
            line: [0; 512],
        };
        for (slot, byte) in made.options.iter_mut().zip(segment.option_bytes()) {
            *slot = *byte;
            made.options_len += 1;
        }
        fill_text(&mut made.source_address, &segment.source.ip().to_string());
        fill_text(&mut made.destination_address, &segment.destination.ip().to_string());
        fill_text(&mut made.line, &segment.to_string());
        made
    }
}

/// The name of a TCP state in RFC 9293 (section 3.3.2): "SYN-SENT".
///
/// @param state  A value of enum keepsock_tcp_state; "UNKNOWN" for any other number.
/// @return A static string. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn keepsock_tcp_state_name(state: i32) -> *const c_char {
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

/// The SYN that opened an accepted connection: the peer's initial sequence number, MSS, window
/// scale and other options, TTL. The server must have been made with
/// keepsock_options_set_save_syn(). No privilege is needed (Linux: TCP_SAVED_SYN).
///
/// The kernel gives it once and forgets it; the connection keeps its copy. Asked once, it can
/// be had again at any time, also after close. Whoever does not ask pays nothing.
///
/// @param client  A connection that a server accepted.
/// @param out     Filled in on success.
/// @param size    sizeof *out.
/// @param error   See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK; KEEPSOCK_ERR_NOT_FOUND: the kernel has not kept it, for the server
///         did not ask, or was so busy that it answered with a SYN cookie and kept nothing;
///         _WRONG_STATE: made by keepsock_client_connect(), so it was this side that sent the
///         SYN; _UNSUPPORTED: a Unix socket, which has none, or a platform that keeps none (the
///         error says which); _CLOSED: not asked for before it was closed; _INVALID_ARGUMENT,
///         _OS. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_client_syn(
    client: *const keepsock_client,
    out: *mut keepsock_segment,
    size: usize,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "saved SYN";
    let body = || {
        // SAFETY: null, or live as the header asks.
        let client = unsafe { live(client, OPERATION, "client") }?;
        let out = output(out, OPERATION, "out")?;
        let segment = keepsock_segment::from(client.socket().syn()?);
        // SAFETY: out has `size` bytes as the header asks.
        unsafe { write_sized(out, size, &segment, OPERATION) }
    };
    // SAFETY: null, or writable as the header asks.
    unsafe { guard(error, OPERATION, body) }
}

/// A watch on one TCP port, which shows the handshakes of the connections that are made from or
/// to it, whichever program makes them.
///
/// Linux only: a packet socket (packet(7)), which needs CAP_NET_RAW. Root has that; so has a
/// program that it was given to ("setcap cap_net_raw+ep PROGRAM"), and whatever runs
/// inside of "unshare -Urn", which any user may start and where only a loopback interface is.
///
/// Packets are queued until keepsock_capture_handshake() reads them, and what no longer
/// fits is lost: a capture is for having a look, not for keeping by a busy port.
///
/// Threads: any number of threads may look for handshakes at once. Only keepsock_capture_free()
/// needs the object for itself.
pub struct keepsock_capture(Capture);

impl Handle for keepsock_capture {
    const MARK: u32 = 0x6b73_0040;
}

impl Pooled for keepsock_capture {
    fn pool() -> &'static Pool<Self> {
        static POOL: Pool<keepsock_capture> = Pool::new();
        &POOL
    }
}

/// The three packets that opened one TCP connection: 0 is the client's SYN, 1 the server's
/// SYN and ACK, 2 the client's ACK (RFC 9293 section 3.5).
///
/// Threads: a handshake does not change; any number of threads may read it.
pub struct keepsock_handshake {
    handshake: Handshake,
    lines: CString,
    diagram: CString,
}

impl Handle for keepsock_handshake {
    const MARK: u32 = 0x6b73_0042;
}

impl Pooled for keepsock_handshake {
    fn pool() -> &'static Pool<Self> {
        static POOL: Pool<keepsock_handshake> = Pool::new();
        &POOL
    }
}

impl keepsock_handshake {
    fn new(handshake: Handshake) -> keepsock_handshake {
        keepsock_handshake {
            lines: c_string(handshake.lines().join("\n")),
            diagram: c_string(handshake.diagram()),
            handshake,
        }
    }
}

/// Begins to watch a port, be it that of a server or the one that a client was given. What
/// passes the interfaces of this process's network is seen from now on: begin before the
/// connection does.
///
/// @param port     Above 0.
/// @param capture  Receives the watch; free it with keepsock_capture_free().
/// @param error    See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK; KEEPSOCK_ERR_PERMISSION_DENIED: no CAP_NET_RAW; _UNSUPPORTED: not Linux,
///         or a kernel without packet sockets; _NO_DESCRIPTORS, _NO_MEMORY,
///         _INVALID_ARGUMENT, _OS. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_capture_new(
    port: u16,
    capture: *mut *mut keepsock_capture,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "capture";
    let body = || {
        let out = output(capture, OPERATION, "capture")?;
        let made = handle::give(keepsock_capture(Capture::on_port(port)?));
        // SAFETY: not null, and writable as the header asks.
        unsafe { out.write(made) };
        Ok(())
    };
    // SAFETY: null, or writable as the header asks.
    unsafe { guard(error, OPERATION, body) }
}

/// The handshake of a connection of this program, made by either side; waits until it
/// is complete. If its addresses were used several times, it is the latest handshake.
///
/// @param capture     The watch on a port of one of the sides.
/// @param client      The connection; it may be closed already.
/// @param timeout_ms  The time to wait; 0: only look at what was seen so far;
///                    KEEPSOCK_INFINITE: as long as it takes.
/// @param handshake   Receives it; free it with keepsock_handshake_free().
/// @param error       See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK; KEEPSOCK_ERR_TIMED_OUT: not all of its packets were seen (the error tells
///         which were, and whether the queue was full); _UNSUPPORTED: a Unix socket has no
///         handshake; _INVALID_ARGUMENT: also if neither side has the port; _OS. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_capture_handshake(
    capture: *const keepsock_capture,
    client: *const keepsock_client,
    timeout_ms: i64,
    handshake: *mut *mut keepsock_handshake,
    error: *mut *mut keepsock_error,
) -> i32 {
    let tuple = || {
        // SAFETY: null, or live as the header asks.
        let client = unsafe { live(client, HANDSHAKE, "client") }?;
        Ok(client.socket().five_tuple())
    };
    // SAFETY: as the header asks.
    unsafe { find(capture, tuple, timeout_ms, handshake, error) }
}

/// The handshake of any connection, another program's for instance, by the addresses of its
/// sides: "192.0.2.1:40000", "[2001:db8::1]:80". Which of them is the client does not matter.
///
/// @param capture     The watch on a port of one of the sides.
/// @param one         The address of one side, a number with its port.
/// @param other       That of the other.
/// @param timeout_ms  The time to wait; 0: only look at what was seen so far;
///                    KEEPSOCK_INFINITE: as long as it takes.
/// @param handshake   Receives it; free it with keepsock_handshake_free().
/// @param error       See keepsock_error; may be NULL.
/// @return Those of keepsock_capture_handshake(), and KEEPSOCK_ERR_INVALID_ENDPOINT. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_capture_handshake_between(
    capture: *const keepsock_capture,
    one: *const c_char,
    other: *const c_char,
    timeout_ms: i64,
    handshake: *mut *mut keepsock_handshake,
    error: *mut *mut keepsock_error,
) -> i32 {
    let tuple = || {
        let address = |text: *const c_char| {
            // SAFETY: null, or a string as the header asks.
            let endpoint = unsafe { super::endpoint(text, HANDSHAKE) }?;
            endpoint.to_socket_addr().map_err(|e| e.during(HANDSHAKE))
        };
        Ok(FiveTuple::tcp(address(one)?, address(other)?))
    };
    // SAFETY: as the header asks.
    unsafe { find(capture, tuple, timeout_ms, handshake, error) }
}

const HANDSHAKE: &str = "handshake";

/// # Safety
/// `capture` is null or live; `handshake` and `error` are null or writable.
unsafe fn find(
    capture: *const keepsock_capture,
    tuple: impl FnOnce() -> Result<FiveTuple>,
    timeout_ms: i64,
    handshake: *mut *mut keepsock_handshake,
    error: *mut *mut keepsock_error,
) -> i32 {
    let body = || {
        // SAFETY: as the caller promises.
        let capture = unsafe { live(capture, HANDSHAKE, "capture") }?;
        let out = output(handshake, HANDSHAKE, "handshake")?;
        let found = capture.0.handshake(&tuple()?, timeout(timeout_ms, HANDSHAKE)?)?;
        // SAFETY: not null, and writable by the caller's promise.
        unsafe { out.write(handle::give(keepsock_handshake::new(found))) };
        Ok(())
    };
    // SAFETY: as the caller promises.
    unsafe { guard(error, HANDSHAKE, body) }
}

/// Ends a watch. Handshakes that it gave live on. No other thread may be using it. Freeing NULL
/// does nothing.
///
/// @param capture  A watch, or NULL. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_capture_free(capture: *mut keepsock_capture) {
    // SAFETY: null, or a watch as the header asks.
    unsafe { handle::free(capture) };
}

/// # Safety
/// `handshake` is null or live; `error` is null or writable.
unsafe fn with(
    handshake: *const keepsock_handshake,
    error: *mut *mut keepsock_error,
    body: impl FnOnce(&Handshake) -> Result<()>,
) -> i32 {
    let body = || {
        // SAFETY: as the caller promises.
        body(unsafe { &live(handshake, HANDSHAKE, "handshake")?.handshake })
    };
    // SAFETY: as the caller promises.
    unsafe { guard(error, HANDSHAKE, body) }
}

/// One of the list of three, by C's index.
fn pick<T>(three: [T; 3], index: usize) -> Result<T> {
    let picked = three.into_iter().nth(index);
    picked.ok_or_else(|| invalid(HANDSHAKE, format!("index {index} is above 2")))
}

/// One of the packets. Of one that was sent several times it is the first copy.
///
/// @param handshake  A handshake.
/// @param index      0: SYN, 1: SYN and ACK, 2: ACK.
/// @param out        Filled in on success.
/// @param size       sizeof *out.
/// @param error      See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_handshake_segment(
    handshake: *const keepsock_handshake,
    index: usize,
    out: *mut keepsock_segment,
    size: usize,
    error: *mut *mut keepsock_error,
) -> i32 {
    let body = |handshake: &Handshake| {
        let segment = keepsock_segment::from(pick(handshake.steps(), index)?.segment);
        // SAFETY: out has `size` bytes as the header asks.
        unsafe { write_sized(out, size, &segment, HANDSHAKE) }
    };
    // SAFETY: as the header asks.
    unsafe { with(handshake, error, body) }
}

/// The state of each side after one of the packets has come; before the first they are CLOSED
/// and LISTEN. They are worked out from the packets (RFC 9293 section 3.3.2), not asked of
/// anybody.
///
/// @param handshake  A handshake.
/// @param index      0: SYN, 1: SYN and ACK, 2: ACK.
/// @param client     Receives a value of enum keepsock_tcp_state: the side that asked for the
///                   connection; may be NULL.
/// @param server     Receives one, too: the side that listened; may be NULL.
/// @param error      See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_handshake_states(
    handshake: *const keepsock_handshake,
    index: usize,
    client: *mut i32,
    server: *mut i32,
    error: *mut *mut keepsock_error,
) -> i32 {
    let body = |handshake: &Handshake| {
        let step = pick(handshake.steps(), index)?;
        for (out, state) in [(client, step.client), (server, step.server)] {
            if !out.is_null() {
                // SAFETY: not null, and writable as the header asks.
                unsafe { out.write(state as i32) };
            }
        }
        Ok(())
    };
    // SAFETY: as the header asks.
    unsafe { with(handshake, error, body) }
}

/// How often one of the packets was sent again, because no answer came in time.
///
/// @param handshake  A handshake.
/// @param index      0: SYN, 1: SYN and ACK; of 2, the ACK, it is not known: 0.
/// @param count      Receives the number, without the first time.
/// @param error      See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_handshake_retransmissions(
    handshake: *const keepsock_handshake,
    index: usize,
    count: *mut u32,
    error: *mut *mut keepsock_error,
) -> i32 {
    let body = |h: &Handshake| {
        let out = output(count, HANDSHAKE, "count")?;
        let count = pick([h.syn_retransmissions, h.syn_ack_retransmissions, 0], index)?;
        // SAFETY: not null, and writable as the header asks.
        unsafe { out.write(count) };
        Ok(())
    };
    // SAFETY: as the header asks.
    unsafe { with(handshake, error, body) }
}

/// The three packets as "tcpdump -n -S -t" prints them, each on a line of its own.
///
/// @param handshake  A handshake, or NULL: "".
/// @return Text that lives as long as the object; its last line does not end. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_handshake_lines(
    handshake: *const keepsock_handshake,
) -> *const c_char {
    // SAFETY: null, or live as the header asks.
    unsafe { handle::get(handshake) }.map_or(c"".as_ptr(), |h| h.lines.as_ptr())
}

/// A sequence diagram in at most 80 columns: the client at the left, the server at the right,
/// their states beside their lines, and the numbers above the arrows.
///
/// @param handshake  A handshake, or NULL: "".
/// @return Text that lives as long as the object; its last line does not end. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_handshake_diagram(
    handshake: *const keepsock_handshake,
) -> *const c_char {
    // SAFETY: null, or live as the header asks.
    unsafe { handle::get(handshake) }.map_or(c"".as_ptr(), |h| h.diagram.as_ptr())
}

/// Frees a handshake. Freeing NULL does nothing.
///
/// @param handshake  A handshake, or NULL. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_handshake_free(handshake: *mut keepsock_handshake) {
    // SAFETY: null, or a handshake as the header asks.
    unsafe { handle::free(handshake) };
}

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
