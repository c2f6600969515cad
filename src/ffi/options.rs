//! `keepsock_options`.

use std::borrow::Cow;
use std::ffi::{c_char, c_void};

use super::handle::{Handle, Pool, Pooled};
use super::{
    Result, bytes, cancel, endpoint, guard, handle, invalid, keepsock_cancel, keepsock_error,
    output, text, time, timeout,
};
use crate::{Endpoint, Family, Keepalive, SocketOptions};

const OPERATION: &str = "options";

/// How a socket is to be, set before there is one. Made by
/// keepsock_options_new() with the defaults; connect, listen and the from_fd
/// functions copy what they need, so one object serves any number of sockets and
/// may be freed at once. NULL in its place means the defaults.
///
/// Threads: setting needs the object for itself; passing it to connect or listen
/// only reads it.
pub struct keepsock_options(SocketOptions);

impl Handle for keepsock_options {
    const MARK: u32 = 0x6b73_0006;
}

impl Pooled for keepsock_options {
    fn pool() -> &'static Pool<Self> {
        static POOL: Pool<keepsock_options> = Pool::new();
        &POOL
    }
}

impl keepsock_options {
    /// # Safety
    /// `options` is null or a handle, and is not changed or freed while the result lives.
    pub(super) unsafe fn or_default<'a>(
        options: *const keepsock_options,
        operation: &'static str,
    ) -> Result<Cow<'a, SocketOptions>> {
        // SAFETY: as the caller promises.
        let options: Option<&keepsock_options> =
            unsafe { super::optional(options, operation, "options") }?;
        Ok(options.map_or_else(|| Cow::Owned(SocketOptions::default()), |o| Cow::Borrowed(&o.0)))
    }
}

/// # Safety
/// `options` and `error` are null or as the header asks.
unsafe fn set(
    options: *mut keepsock_options,
    error: *mut *mut keepsock_error,
    change: impl FnOnce(SocketOptions) -> Result<SocketOptions>,
) -> i32 {
    let body = || {
        // SAFETY: null, or live and ours alone as the header asks.
        let Some(options) = (unsafe { handle::get_mut(options) }) else {
            return Err(super::not_a_handle(options, OPERATION, "options"));
        };
        let changed = change(options.0.clone())?;
        changed.validate(OPERATION)?;
        options.0 = changed;
        Ok(())
    };
    // SAFETY: as the caller promises.
    unsafe { guard(error, OPERATION, body) }
}

/// Keepalive as the kernel counts it, from C's arguments.
pub(super) fn keepalive(idle_ms: i64, interval_ms: i64, count: u32) -> Result<Keepalive> {
    Keepalive::new(time(idle_ms, "keepalive")?, time(interval_ms, "keepalive")?, count)
}

/// Makes options with the defaults.
///
/// @param options  Receives them; free them with keepsock_options_free().
/// @param error    See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT for NULL. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_options_new(
    options: *mut *mut keepsock_options,
    error: *mut *mut keepsock_error,
) -> i32 {
    let body = || {
        let out = output(options, OPERATION, "options")?;
        // SAFETY: not null, and writable as the header asks.
        unsafe { out.write(handle::give(keepsock_options(SocketOptions::default()))) };
        Ok(())
    };
    // SAFETY: null, or writable as the header asks.
    unsafe { guard(error, OPERATION, body) }
}

/// Keepalive of TCP connections (tcp(7), RFC 9293 section 3.8.4): after idle_ms
/// without traffic the kernel sends a probe, then one each interval_ms; after
/// count unanswered ones the connection ends with KEEPSOCK_ERR_DEAD. An idle
/// peer that vanished is known after idle + interval * count.
/// Default: 45 s, 15 s, 5: known in 120 s, and no common firewall, NAT or load
/// balancer forgets the connection. Unix sockets have no network to keep alive.
///
/// @param options      The options to change.
/// @param idle_ms      1 ms to 32,767 s; rounded up to whole seconds.
/// @param interval_ms  Likewise.
/// @param count        1 to 127.
/// @param error        See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT, which changes nothing.
///         Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_options_set_keepalive(
    options: *mut keepsock_options,
    idle_ms: i64,
    interval_ms: i64,
    count: u32,
    error: *mut *mut keepsock_error,
) -> i32 {
    let change = |o: SocketOptions| Ok(o.keepalive(keepalive(idle_ms, interval_ms, count)?));
    // SAFETY: as the header asks.
    unsafe { set(options, error, change) }
}

/// Turns keepalive off.
///
/// @param options  The options to change.
/// @param error    See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT for NULL. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_options_disable_keepalive(
    options: *mut keepsock_options,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: as the header asks.
    unsafe { set(options, error, |o| Ok(o.keepalive(None))) }
}

/// Reports a peer that vanished as KEEPSOCK_ERR_DEAD within ms and a second: whether the
/// connection is idle, has data that is not acknowledged, or a write waits for room. A peer
/// that lives and has merely stopped reading is waited for, unless
/// keepsock_options_set_end_stalled() says otherwise. Without it there is keepalive alone,
/// which says nothing while data is unacknowledged; then the system may try for a quarter of
/// an hour. Default: KEEPSOCK_INFINITE.
///
/// Sets keepalive to fit. While data is on its way the calls that wait look at how long the
/// peer was silent (tcp(7), TCP_INFO), four times in ms; a program that does not wait in calls
/// asks keepsock_client_check_alive(). Linux 6.15 and later are told to send again, and to ask
/// a peer that takes no data, at least each eighth of ms, or each second (TCP_RTO_MAX_MS);
/// earlier kernels ask less and less often, so that a peer which vanishes while it takes no
/// data is found later. macOS and Windows do this in the kernel, in whole seconds; FreeBSD has
/// it with end_stalled only, and connecting and listening are KEEPSOCK_ERR_UNSUPPORTED without.
/// The peer of a Unix socket cannot vanish.
///
/// @param options  The options to change.
/// @param ms       2,000 to 163,880,000 milliseconds, or KEEPSOCK_INFINITE: not.
/// @param error    See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT: out of range; keepalive is off, or
///         was set to values that find a dead peer later; with mptcp, for one path's silence
///         is not the peer's; KEEPSOCK_INFINITE while end_stalled is on. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_options_set_dead_after(
    options: *mut keepsock_options,
    ms: i64,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: as the header asks.
    unsafe { set(options, error, |o| Ok(o.dead_after(timeout(ms, OPERATION)?))) }
}

/// After keepsock_options_set_dead_after(): gives up a peer that lives but takes no data for
/// that time, too, with KEEPSOCK_ERR_STALLED. The kernel does it by itself (TCP_USER_TIMEOUT of
/// tcp(7), RFC 9293 section 3.8.3; FreeBSD: TCP_MAXUNACKTIME), whether a call waits or not; it
/// counts from the first byte that is not taken.
/// Elsewhere connecting and listening are KEEPSOCK_ERR_UNSUPPORTED. TCP only. Default: false.
///
/// @param options  The options to change.
/// @param on       Whether.
/// @param error    See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT: no dead_after was set. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_options_set_end_stalled(
    options: *mut keepsock_options,
    on: bool,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: as the header asks.
    unsafe { set(options, error, |o| Ok(o.end_stalled(on))) }
}

/// Keeps firewalls, NATs and load balancers from forgetting the connection, which they do
/// after it was idle for ms: keepalive probes pass at least that often, and one of them may get
/// lost. Default: KEEPSOCK_INFINITE, the default keepalive probes after 45 s, in time for all
/// that are common. Use keepsock_options_set_heartbeat() where something on the way does not
/// pass probes on, such as a proxy.
///
/// @param options  The options to change.
/// @param ms       2,000 to 163,880,000 milliseconds, or KEEPSOCK_INFINITE.
/// @param error    See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT: out of range, keepalive is off, or
///         was set to a longer idle time. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_options_set_survive_idle(
    options: *mut keepsock_options,
    ms: i64,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: as the header asks.
    unsafe { set(options, error, |o| Ok(o.survive_idle(timeout(ms, OPERATION)?))) }
}

/// Sends bytes whenever nothing was written for a time: "PING\r\n", MQTT's C0 00, what the
/// protocol has for that. For proxies, which end TCP and so answer keepalive themselves, and,
/// with keepsock_options_set_idle_limit(), for peers whose kernel answers while the program
/// hangs. Never in the middle of a write. Sent by any call that waits on the connection, and
/// by keepsock_client_check_alive(). A peer that takes no data gets none. Default: none.
///
/// @param options   The options to change.
/// @param buf       The bytes, copied.
/// @param len       How many; above 0.
/// @param every_ms  Milliseconds above 0.
/// @param error     See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT (an idle limit that is not longer
///         than every_ms, too). Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_options_set_heartbeat(
    options: *mut keepsock_options,
    buf: *const c_void,
    len: usize,
    every_ms: i64,
    error: *mut *mut keepsock_error,
) -> i32 {
    let change = |o: SocketOptions| {
        // SAFETY: a buffer as the header asks.
        let bytes = unsafe { bytes(buf, len, OPERATION) }?;
        Ok(o.heartbeat(bytes, time(every_ms, OPERATION)?))
    };
    // SAFETY: as the header asks.
    unsafe { set(options, error, change) }
}

/// Ends the connection for those who wait to read if nothing came for ms: their calls are
/// KEEPSOCK_ERR_IDLE_LIMIT, or KEEPSOCK_ERR_HEARTBEAT_MISSED if there is a heartbeat, which
/// the peer's program should have answered. A last word can still be written; then close, which
/// waits for the peer as always, but not for one that missed heartbeats. A read timeout is for one
/// call, this is for the connection. Default: KEEPSOCK_INFINITE.
///
/// @param options  The options to change.
/// @param ms       Milliseconds above 0, or KEEPSOCK_INFINITE.
/// @param error    See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT (not longer than the heartbeat's
///         time, too). Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_options_set_idle_limit(
    options: *mut keepsock_options,
    ms: i64,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: as the header asks.
    unsafe { set(options, error, |o| Ok(o.idle_limit(timeout(ms, OPERATION)?))) }
}

/// As keepsock_options_set_idle_limit(), until the first byte has come: for clients that connect
/// and say nothing. Default: KEEPSOCK_INFINITE, the idle limit holds from the beginning.
///
/// @param options  The options to change.
/// @param ms       Milliseconds above 0, or KEEPSOCK_INFINITE.
/// @param error    See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_options_set_first_byte_limit(
    options: *mut keepsock_options,
    ms: i64,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: as the header asks.
    unsafe { set(options, error, |o| Ok(o.first_byte_limit(timeout(ms, OPERATION)?))) }
}

/// Whether closing takes a last copy of what the kernel knows of the connection, for
/// keepsock_client_snapshot() afterwards; it costs a few system calls. A connection that
/// ended by an error has it in any case. Default: false.
///
/// @param options  The options to change.
/// @param on       Whether.
/// @param error    See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT for NULL. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_options_set_last_snapshot(
    options: *mut keepsock_options,
    on: bool,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: as the header asks.
    unsafe { set(options, error, |o| Ok(o.last_snapshot(on))) }
}

/// Whether small writes leave at once (TCP_NODELAY), or are gathered while
/// earlier ones are unacknowledged (Nagle's algorithm). Default: at once.
///
/// @param options  The options to change.
/// @param on       true: at once.
/// @param error    See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT for NULL. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_options_set_nodelay(
    options: *mut keepsock_options,
    on: bool,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: as the header asks.
    unsafe { set(options, error, |o| Ok(o.nodelay(on))) }
}

/// The time for a connect: name lookup and every attempt together. For listen:
/// the time for looking its name up. Default: 30,000.
///
/// @param options  The options to change.
/// @param ms       Milliseconds above 0, or KEEPSOCK_INFINITE: as long as the
///                 system takes.
/// @param error    See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_options_set_connect_timeout(
    options: *mut keepsock_options,
    ms: i64,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: as the header asks.
    unsafe { set(options, error, |o| Ok(o.connect_timeout(timeout(ms, OPERATION)?))) }
}

/// The time between the starts of two attempts of a connect, to the addresses of one name
/// (RFC 8305 section 5, Connection Attempt Delay); the next one starts at once when one has failed.
/// Shorter is quicker where an address does not answer, and a burden on servers that are merely
/// slow. Default: 250.
///
/// @param options  The options to change.
/// @param ms       10 to 2,000 milliseconds, as the RFC demands.
/// @param error    See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_options_set_attempt_delay(
    options: *mut keepsock_options,
    ms: i64,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: as the header asks.
    unsafe { set(options, error, |o| Ok(o.attempt_delay(time(ms, OPERATION)?))) }
}

/// The time for each reading call as a whole. Default: KEEPSOCK_INFINITE.
///
/// @param options  The options to change.
/// @param ms       Milliseconds above 0, or KEEPSOCK_INFINITE.
/// @param error    See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_options_set_read_timeout(
    options: *mut keepsock_options,
    ms: i64,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: as the header asks.
    unsafe { set(options, error, |o| Ok(o.read_timeout(timeout(ms, OPERATION)?))) }
}

/// The time for each writing call as a whole. Default: KEEPSOCK_INFINITE.
///
/// @param options  The options to change.
/// @param ms       Milliseconds above 0, or KEEPSOCK_INFINITE.
/// @param error    See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_options_set_write_timeout(
    options: *mut keepsock_options,
    ms: i64,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: as the header asks.
    unsafe { set(options, error, |o| Ok(o.write_timeout(timeout(ms, OPERATION)?))) }
}

/// How long keepsock_client_close() may wait for the peer to end its side.
/// Default: 2,000.
///
/// @param options  The options to change.
/// @param ms       Milliseconds; 0: not at all.
/// @param error    See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT (a close without limit
///         might hang). Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_options_set_close_timeout(
    options: *mut keepsock_options,
    ms: i64,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: as the header asks.
    unsafe { set(options, error, |o| Ok(o.close_timeout(time(ms, OPERATION)?))) }
}

/// IPv4 only, IPv6 only, or any (the default). TCP only: connecting or listening on
/// a Unix socket with it is KEEPSOCK_ERR_INVALID_ARGUMENT.
///
/// @param options  The options to change.
/// @param family   A value of enum keepsock_family.
/// @param error    See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_options_set_family(
    options: *mut keepsock_options,
    family: i32,
    error: *mut *mut keepsock_error,
) -> i32 {
    let known = [Family::Any, Family::Ipv4, Family::Ipv6].into_iter().find(|f| *f as i32 == family);
    let change = |o: SocketOptions| match known {
        Some(family) => Ok(o.family(family)),
        None => Err(invalid(OPERATION, format!("{family} is not a keepsock_family"))),
    };
    // SAFETY: as the header asks.
    unsafe { set(options, error, change) }
}

/// The local address and port that a client connects from. TCP connects only:
/// elsewhere it is KEEPSOCK_ERR_INVALID_ARGUMENT. Default: the system chooses both.
///
/// @param options  The options to change.
/// @param local    An endpoint; port 0 lets the system choose the port.
/// @param error    See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, KEEPSOCK_ERR_INVALID_ENDPOINT,
///         KEEPSOCK_ERR_INVALID_ARGUMENT. Whether the address is this machine's is
///         seen at connect: KEEPSOCK_ERR_ADDRESS_NOT_AVAILABLE. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_options_set_local(
    options: *mut keepsock_options,
    local: *const c_char,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: a string as the header asks.
    let change = |o: SocketOptions| Ok(o.local(unsafe { endpoint(local, OPERATION) }?));
    // SAFETY: as the header asks.
    unsafe { set(options, error, change) }
}

/// The network interface that the socket's traffic uses; TCP only. Linux (every user
/// since 5.7) and macOS; elsewhere connect and listen return
/// KEEPSOCK_ERR_UNSUPPORTED. Default: as routed.
///
/// @param options  The options to change.
/// @param name     Its name, at most 15 bytes: "eth0".
/// @param error    See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_options_set_interface(
    options: *mut keepsock_options,
    name: *const c_char,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: a string as the header asks.
    let change = |o: SocketOptions| Ok(o.interface(unsafe { text(name, OPERATION, "name") }?));
    // SAFETY: as the header asks.
    unsafe { set(options, error, change) }
}

/// Adds an address to connect to in place of looking the endpoint's name up.
/// They race in the order they were added. TCP connects only. Default: none.
///
/// @param options  The options to change.
/// @param address  A numeric endpoint: "192.0.2.1:80", "[2001:db8::1]:80".
/// @param error    See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, KEEPSOCK_ERR_INVALID_ENDPOINT (names are not
///         addresses), KEEPSOCK_ERR_INVALID_ARGUMENT. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_options_add_address(
    options: *mut keepsock_options,
    address: *const c_char,
    error: *mut *mut keepsock_error,
) -> i32 {
    let change = |o: SocketOptions| {
        // SAFETY: a string as the header asks.
        let endpoint: Endpoint = unsafe { endpoint(address, OPERATION) }?;
        Ok(o.address(endpoint.to_socket_addr()?))
    };
    // SAFETY: as the header asks.
    unsafe { set(options, error, change) }
}

/// How many confirmed connections may wait to be accepted. The system lowers
/// it to its own limit (Linux: net.core.somaxconn). Default: that limit.
///
/// @param options  The options to change.
/// @param backlog  Above 0.
/// @param error    See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_options_set_backlog(
    options: *mut keepsock_options,
    backlog: u32,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: as the header asks.
    unsafe { set(options, error, |o| Ok(o.backlog(backlog))) }
}

/// TCP Fast Open (RFC 7413): a client that was here before sends its first bytes with the SYN, and
/// saves a round trip. Linux only; elsewhere connecting and listening are
/// KEEPSOCK_ERR_UNSUPPORTED. The system must allow it, for servers too (net.ipv4.tcp_fastopen = 3).
/// Default: false.
///
/// Connecting to an address with a cookie of an earlier connection succeeds at once and sends
/// nothing: the handshake comes with the first write, and its failures too. So it is for protocols
/// in which the client speaks first, and for what may arrive twice. A name with several addresses
/// races without it.
///
/// @param options  The options to change.
/// @param on       Whether.
/// @param error    See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT for NULL. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_options_set_fast_open(
    options: *mut keepsock_options,
    on: bool,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: as the header asks.
    unsafe { set(options, error, |o| Ok(o.fast_open(on))) }
}

/// Multipath TCP (RFC 8684): one connection over several networks, that outlives the loss of one of
/// them. Linux only; elsewhere, and where net.mptcp.enabled is 0, connecting and listening are
/// KEEPSOCK_ERR_UNSUPPORTED. With a peer that does not know it the connection is plain TCP:
/// keepsock_client_is_mptcp(). Not together with keepsock_options_set_dead_after(), for the silence
/// of one path is not that of the peer. Default: false.
///
/// @param options  The options to change.
/// @param on       Whether.
/// @param error    See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT: dead_after was set. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_options_set_mptcp(
    options: *mut keepsock_options,
    on: bool,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: as the header asks.
    unsafe { set(options, error, |o| Ok(o.mptcp(on))) }
}

/// Whether the kernel may hand over the datagrams of one sender that follow each other as one
/// (UDP_GRO of udp(7), Linux 5.0); they are told one by one as always. For those who receive many
/// thousand in a second: each is copied once more, one thread receives at a time, and it takes up
/// to a megabyte. What is left over waits in the socket, so that its descriptor may not be readable
/// though there is something to receive: whoever polls it goes on until KEEPSOCK_ERR_WOULD_BLOCK.
/// Several that came as one and found no room are one in keepsock_datagram_stats.dropped, for the
/// kernel counts so. UDP only; elsewhere binding is KEEPSOCK_ERR_UNSUPPORTED, and for other sockets
/// KEEPSOCK_ERR_INVALID_ARGUMENT. Default: no.
///
/// @param options  The options to change.
/// @param on       Whether.
/// @param error    See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT for NULL. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_options_set_coalescing(
    options: *mut keepsock_options,
    on: bool,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: as the header asks.
    unsafe { set(options, error, |o| Ok(o.coalescing(on))) }
}

/// Whether a server keeps the SYN of each connection, for keepsock_client_syn(): TCP on
/// Linux (TCP_SAVE_SYN, 4.2 and later), for every user. For servers only. Listening or taking
/// over with it returns KEEPSOCK_ERR_UNSUPPORTED where the system cannot, connecting with it
/// KEEPSOCK_ERR_INVALID_ARGUMENT. Default: no. The kernel keeps about 100 bytes for each
/// connection until they are asked for.
///
/// @param options  The options to change.
/// @param on       true: keep them.
/// @param error    See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_options_set_save_syn(
    options: *mut keepsock_options,
    on: bool,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: as the header asks.
    unsafe { set(options, error, |o| Ok(o.save_syn(on))) }
}

/// The permissions of a Unix socket's file, whatever the umask: who may write to it may connect.
/// In force before anybody can. For servers and datagram sockets on a path; others have no file and
/// are KEEPSOCK_ERR_INVALID_ARGUMENT when they are made. Default: as the umask has it.
///
/// @param options  The options to change.
/// @param mode     At most 0777: 0660.
/// @param error    See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_options_set_unix_mode(
    options: *mut keepsock_options,
    mode: u32,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: as the header asks.
    unsafe { set(options, error, |o| Ok(o.unix_mode(mode))) }
}

/// The owner and the group of a Unix socket's file, in force before anybody can connect. Another
/// owner is for root, another group for its members; else listening is
/// KEEPSOCK_ERR_PERMISSION_DENIED. For sockets on a path, as keepsock_options_set_unix_mode().
/// Default: what the system gives it.
///
/// @param options  The options to change.
/// @param uid      The number of a user; -1 leaves it.
/// @param gid      The number of a group; -1 leaves it.
/// @param error    See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_options_set_unix_owner(
    options: *mut keepsock_options,
    uid: i64,
    gid: i64,
    error: *mut *mut keepsock_error,
) -> i32 {
    let number = |id: i64, name: &str| match u32::try_from(id) {
        Ok(id) => Ok(Some(id)),
        Err(_) if id == -1 => Ok(None),
        Err(_) => Err(invalid(OPERATION, format!("{name} {id} is out of range"))),
    };
    let change = |o: SocketOptions| Ok(o.unix_owner(number(uid, "uid")?, number(gid, "gid")?));
    // SAFETY: as the header asks.
    unsafe { set(options, error, change) }
}

/// Adds a user who may connect to a listening Unix socket. Connections of others are closed at
/// once, before the program sees them, and counted (keepsock_server_counters, denied). Root is no
/// exception. Of a bound Unix datagram socket (Linux) the users who may send: datagrams of others
/// are passed over, and counted (keepsock_datagram_stats, denied). For listening and binding on
/// Unix sockets only; others are KEEPSOCK_ERR_INVALID_ARGUMENT when they are made. Default: none,
/// everybody may.
///
/// @param options  The options to change.
/// @param uid      The number of a user; not (uid_t)-1, which is nobody's.
/// @param error    See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_options_allow_user(
    options: *mut keepsock_options,
    uid: u32,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: as the header asks.
    unsafe { set(options, error, |o| Ok(o.allow_user(uid))) }
}

/// A Unix socket for packets in order (SOCK_SEQPACKET) and not for a stream: each write is one
/// packet, and each read receives one, whole. For connecting and for listening, on both sides;
/// KEEPSOCK_ERR_INVALID_ARGUMENT for TCP. Linux and FreeBSD; macOS has none
/// (KEEPSOCK_ERR_UNSUPPORTED). Default: false.
///
/// A packet has at least one byte, for an empty one would look like the end, and at most what the
/// socket's send buffer holds (Linux: about 200 KB by default; KEEPSOCK_ERR_TOO_LONG). One that
/// does not fit into the reader's buffer is lost, with KEEPSOCK_ERR_TOO_LONG; the next one is not.
/// Lines, messages, keepsock_client_read_exact() and files are for streams:
/// KEEPSOCK_ERR_WRONG_STATE. Serving by events is, too: KEEPSOCK_ERR_INVALID_ARGUMENT, or
/// _WRONG_STATE for a connection that is added (keepsock_service_add()).
///
/// @param options  The options to change.
/// @param on       Whether.
/// @param error    See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT for NULL. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_options_set_sequenced(
    options: *mut keepsock_options,
    on: bool,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: as the header asks.
    unsafe { set(options, error, |o| Ok(o.sequenced(on))) }
}

/// Whether the listening socket, or the datagram socket, can be handed over to another process
/// while this one goes on with it: keepsock_hand_over(). Both have the same socket then, so closing
/// it here does not end the listening. An accept costs one poll more, and the socket one
/// descriptor; served by events, it costs the descriptor only, but must be set, too. What was taken
/// over by a from_fd function or inherited is so in any case. Connecting a stream with it is
/// KEEPSOCK_ERR_INVALID_ARGUMENT. Default: false.
///
/// @param options  The options to change.
/// @param on       Whether.
/// @param error    See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT for NULL. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_options_set_hand_over(
    options: *mut keepsock_options,
    on: bool,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: as the header asks.
    unsafe { set(options, error, |o| Ok(o.hand_over(on))) }
}

/// The token that ends the socket's calls, connect included. Connections that a
/// server accepts start without one. Default: none.
///
/// @param options  The options to change.
/// @param cancel   A token; NULL for none. It is shared: it may be freed before the
///                 options.
/// @param error    See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT for options that are NULL.
///         Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_options_set_cancel(
    options: *mut keepsock_options,
    cancel: *const keepsock_cancel,
    error: *mut *mut keepsock_error,
) -> i32 {
    let change = |o: SocketOptions| {
        // SAFETY: null, or a token as the header asks.
        let token = unsafe { cancel::token(cancel, OPERATION) }?;
        Ok(o.cancel(token))
    };
    // SAFETY: as the header asks.
    unsafe { set(options, error, change) }
}

/// Frees options. Freeing NULL does nothing.
///
/// @param options  Options, or NULL. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_options_free(options: *mut keepsock_options) {
    // SAFETY: null, or options as the header asks.
    unsafe { handle::free(options) };
}
