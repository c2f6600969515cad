//! `keepsock_capture` and `keepsock_handshake`.

use std::ffi::c_char;

use crate::ffi::{
    ErrorOut, Out, Ref, Structure, StructureIn, TextOut, create, fill, handle, keepsock_error,
    keepsock_five_tuple, keepsock_segment, no_element, tcp_from_c, timeout, with,
};
use crate::{Capture, Handshake};

/// A capture of one TCP port: it sees the handshakes of all connections from or to the port, of
/// every program of this machine.
///
/// Linux only: it uses a packet socket (packet(7)), which needs CAP_NET_RAW. Root has it, and so
/// has a program that received it with "setcap cap_net_raw+ep PROGRAM", or that runs inside
/// "unshare -Urn", which every user may start and which has a loopback interface only.
///
/// Packets are queued until keepsock_capture_handshake() reads them. Packets that do not fit into
/// the queue are lost: use a capture to diagnose, not permanently on a busy port.
///
/// Threads: several threads may look for handshakes at the same time.
pub struct keepsock_capture(Capture);

handle!(keepsock_capture, Capture, "capture", 0: Capture);

/// The three packets that opened one TCP connection (RFC 9293 section 3.5).
///
/// Packet 0 is the client's SYN, packet 1 is the server's SYN-ACK, packet 2 is the client's ACK.
///
/// Threads: a handshake does not change. Any number of threads may read it.
pub struct keepsock_handshake(Handshake);

handle!(keepsock_handshake, Handshake, "handshake", 0: Handshake);

/// Starts capturing a port.
///
/// The capture sees packets that pass an interface of this process's network namespace after the
/// call. Start it before the connection.
///
/// @param port     The port of a server or a client, 1 to 65535, in host byte order.
/// @param capture  Receives the capture. Free it with keepsock_capture_free().
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_PERMISSION_DENIED: the process lacks CAP_NET_RAW
///   - KEEPSOCK_ERR_UNSUPPORTED: not Linux, or a kernel without packet sockets
///   - KEEPSOCK_ERR_NO_DESCRIPTORS: the process or the system has no free descriptor
///   - KEEPSOCK_ERR_NO_MEMORY: this process has no memory for the object, or the kernel has no
///     memory or no socket buffers
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or `port` is 0
///   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_capture_new(
    port: u16,
    capture: *mut *mut keepsock_capture,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that `capture` and `error` are NULL or writable.
    let (capture, error) = unsafe { (Out::new(capture, "capture"), ErrorOut::new(error)) };
    create(capture, error, "capture", || Ok(keepsock_capture(Capture::on_port(port)?)))
}

/// Waits for the handshake of a connection, and returns it.
///
/// Either side may have made the connection, and the connection may be closed. If its addresses
/// were used several times, the function returns the latest handshake. The order of the two
/// addresses does not matter. The connection may also be that of another program: set the members
/// of a keepsock_five_tuple, except `text`.
///
/// @param capture     A capture of the port of one side.
/// @param five_tuple  The connection, from keepsock_client_five_tuple() or
///                    keepsock_conn_five_tuple(). The member `text` is ignored.
/// @param size        sizeof *five_tuple.
/// @param timeout_ms  Milliseconds. 0 checks the packets that were seen so far. KEEPSOCK_INFINITE
///                    means no limit.
/// @param handshake   Receives the handshake. Free it with keepsock_handshake_free().
/// @param error       With KEEPSOCK_ERR_TIMED_OUT it says which packets were seen and whether the
///                    queue was full.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_TIMED_OUT: the timeout expired before all packets were seen
///   - KEEPSOCK_ERR_INVALID_ENDPOINT: an address is not a numeric address
///   - KEEPSOCK_ERR_UNSUPPORTED: the protocol is not KEEPSOCK_PROTOCOL_TCP
///   - KEEPSOCK_ERR_NO_MEMORY: this process has no memory for the object
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, out of range, neither side has the captured port, the
///     two addresses have different families, or no version has that size
///   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_capture_handshake(
    capture: *const keepsock_capture,
    five_tuple: *const keepsock_five_tuple,
    size: usize,
    timeout_ms: i64,
    handshake: *mut *mut keepsock_handshake,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `capture` during the call; `five_tuple` has
    // `size` readable bytes; `handshake` and `error` are NULL or writable.
    let (capture, five_tuple, handshake, error) = unsafe {
        (
            Ref::new(capture),
            StructureIn::new(five_tuple, size, "five_tuple"),
            Out::new(handshake, "handshake"),
            ErrorOut::new(error),
        )
    };
    with(capture, error, HANDSHAKE, |capture| {
        handshake.create(|| {
            let tuple = tcp_from_c(&five_tuple.get()?)?;
            let timeout = timeout("timeout_ms", timeout_ms)?;
            Ok(keepsock_handshake(capture.handshake(&tuple, timeout)?))
        })
    })
}

const HANDSHAKE: &str = "handshake";

/// Stops capturing and frees the object. Handshakes that it returned stay valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_capture_free(capture: *mut keepsock_capture) {
    // SAFETY: the header requires that no other thread uses `capture`.
    unsafe { handle::free(capture) };
}

/// Returns one packet of a handshake, with the states of both sides. If the packet was
/// retransmitted, it is the first copy.
///
/// @param index  0: SYN, 1: SYN-ACK, 2: ACK.
/// @param out    Receives the segment.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_NOT_FOUND: `index` is above 2
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or no version has that size
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_handshake_segment(
    handshake: *const keepsock_handshake,
    index: usize,
    out: *mut keepsock_segment,
    size: usize,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `handshake` during the call; `out` has
    // `size` writable bytes; `error` is NULL or writable.
    let (handshake, out, error) =
        unsafe { (Ref::new(handshake), Structure::new(out, size), ErrorOut::new(error)) };
    fill(handshake, out, error, HANDSHAKE, |handshake| {
        let steps = handshake.steps();
        let step = steps.get(index).ok_or_else(|| no_element("packet", index, steps.len()))?;
        let retransmissions = [handshake.syn_retransmissions, handshake.syn_ack_retransmissions];
        Ok(keepsock_segment {
            retransmissions: retransmissions.get(index).copied().unwrap_or(0),
            client_state: step.client as i32,
            server_state: step.server as i32,
            ..keepsock_segment::from(step.segment)
        })
    })
}

/// Writes a sequence diagram in at most 80 columns.
///
/// The client is on the left, the server on the right, with their states and the sequence numbers.
/// The last line has no line end.
///
/// @param buf            Receives the text.
/// @param cap            The size of `buf`.
/// @param required_size  Receives the size that the text needs.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_TOO_LONG: `cap` is too small; `buf` is unchanged
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_handshake_diagram(
    handshake: *const keepsock_handshake,
    buf: *mut c_char,
    cap: usize,
    required_size: *mut usize,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `handshake` during the call; `buf` has `cap`
    // writable bytes; `required_size` and `error` are NULL or writable.
    let (handshake, text, error) = unsafe {
        (Ref::new(handshake), TextOut::new(buf, cap, required_size), ErrorOut::new(error))
    };
    with(handshake, error, HANDSHAKE, |handshake| text.write(handshake.diagram()))
}

/// Frees a handshake.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_handshake_free(handshake: *mut keepsock_handshake) {
    // SAFETY: the header requires that no other thread uses `handshake`.
    unsafe { handle::free(handshake) };
}
