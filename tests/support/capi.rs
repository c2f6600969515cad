//! The C API as an [`Api`]: the functions of the C headers, called as C calls them.

// The purpose of this file is calls of C functions.
#![allow(unsafe_code, clippy::undocumented_unsafe_blocks)]

use std::ffi::{CStr, CString, c_char, c_void};
use std::net::SocketAddr;
use std::panic::Location;
use std::ptr::{null, null_mut};

use keepsock::ffi::*;
use keepsock::{CloseReason, Framing, Sockopt};

#[cfg(feature = "activation")]
use super::activation::capi::CInherited;
#[cfg(feature = "datagram")]
use super::datagram::capi::CDatagram;
#[cfg(all(feature = "datagram", feature = "serve"))]
use super::datagram::capi::CDatagramService;
use super::os::{AsRawFd, FromRawFd, IntoRawFd, NO_FD, OwnedFd, RawFd};
#[cfg(feature = "serve")]
use super::serve::{
    Handler, On, Serve,
    capi::{CConnection, CService},
};
use super::statuses;
use super::{
    Api, Client, ConnStats, Counters, Failure, OnRetry, Opt, Outcome, Passed, Peer, PendingConnect,
    PendingLookup, Reconnect, Server, Token, Told, Tried, Tuple, WatchFn, Watched,
};

pub struct CApi;

/// Text that C lends.
pub fn text(pointer: *const c_char) -> String {
    assert!(!pointer.is_null());
    unsafe { CStr::from_ptr(pointer) }.to_str().unwrap().to_owned()
}

/// Text of a fixed field, which must end with NUL.
pub fn field(chars: &[c_char]) -> String {
    let end = chars.iter().position(|c| *c == 0).expect("no NUL");
    String::from_utf8(chars[..end].iter().map(|c| *c as u8).collect()).unwrap()
}

/// Sets a fixed field, which has only NUL.
pub fn set_field(field: &mut [c_char], text: &str) {
    assert!(text.len() < field.len());
    field.iter_mut().zip(text.bytes()).for_each(|(c, byte)| *c = byte as c_char);
}

pub fn c(text: &str) -> CString {
    CString::new(text).unwrap()
}

/// Calls a function with its last argument and checks that status and error agree, and that the
/// function's documentation lists the status.
#[track_caller]
pub fn call(f: impl FnOnce(*mut *mut keepsock_error) -> i32) -> Outcome<()> {
    let mut error = null_mut();
    let status = f(&raw mut error);
    if status == KEEPSOCK_OK {
        assert!(error.is_null(), "an error object, but the call succeeded");
        return Ok(());
    }
    assert!(!error.is_null(), "status {status} without an error object");
    unsafe {
        assert_eq!(keepsock_error_status(error), status);
        let failure = failure(error);
        keepsock_error_free(error);
        let called = statuses::check(status, &failure.message, Location::caller());
        assert!(called > 0, "which function was called? {}", Location::caller());
        Err(failure)
    }
}

/// The contents of an error object.
pub unsafe fn failure(error: *const keepsock_error) -> Failure {
    unsafe {
        let attempt = |i| {
            let mut a: keepsock_attempt = std::mem::zeroed();
            let status = keepsock_error_attempt(error, i, &raw mut a, size_of_val(&a));
            if status == keepsock::ErrorKind::NotFound.code() {
                return None;
            }
            assert_eq!(status, KEEPSOCK_OK);
            Some(tried(&a))
        };
        Failure {
            status: keepsock_error_status(error),
            message: text(keepsock_error_message(error)).into(),
            operation: text(keepsock_error_operation(error)).into(),
            endpoint: text(keepsock_error_endpoint(error)),
            stage: text(keepsock_error_stage(error)).into(),
            os_error: keepsock_error_os_error(error),
            errno: keepsock_status_errno(keepsock_error_status(error), error),
            lookup_code: keepsock_error_lookup_code(error),
            transferred: keepsock_error_transferred(error),
            attempts: (0..).map_while(attempt).collect(),
        }
    }
}

/// A value of keepsock_close_reason. 0 means none.
pub fn close_reason(number: i32) -> Option<CloseReason> {
    let all = [
        CloseReason::PeerClosed,
        CloseReason::PeerReset,
        CloseReason::Dead,
        CloseReason::Unreachable,
        CloseReason::Stalled,
        CloseReason::IdleTimeout,
        CloseReason::HeartbeatTimeout,
        CloseReason::Cancelled,
        CloseReason::Local,
        CloseReason::MessageTooLong,
        CloseReason::SlowConsumer,
        CloseReason::MessageMalformed,
        CloseReason::FileFailed,
        CloseReason::Detached,
    ];
    let known = all.into_iter().find(|end| *end as i32 == number);
    let words = text(keepsock_close_reason_str(number));
    assert_eq!(words, known.map_or_else(String::new, |end| end.to_string()));
    assert!(known.is_some() || number == 0, "{number} is not a value of keepsock_close_reason");
    known
}

/// A framing as a C program writes it.
pub const fn framing_to_c(framing: &Framing) -> keepsock_framing {
    let mut c = keepsock_framing {
        size: size_of::<keepsock_framing>(),
        kind: keepsock_framing_kind::Raw as i32,
        length_format: 0,
        max: 0,
        len: 0,
        length_offset: 0,
        length_adjustment: 0,
        delimiter: 0,
        reserved: [0; 3],
    };
    let kind = match *framing {
        Framing::Raw => keepsock_framing_kind::Raw,
        Framing::Fixed { len } => {
            c.len = len;
            keepsock_framing_kind::Fixed
        }
        Framing::Lines { max } => {
            c.max = max;
            keepsock_framing_kind::Lines
        }
        Framing::Delimited { delimiter, max } => {
            (c.delimiter, c.max) = (delimiter, max);
            keepsock_framing_kind::Delimited
        }
        Framing::Prefixed { format, max } => {
            (c.length_format, c.max) = (format as i32, max);
            keepsock_framing_kind::Prefixed
        }
        Framing::LengthField { format, offset, adjustment, max } => {
            (c.length_format, c.max) = (format as i32, max);
            (c.length_offset, c.length_adjustment) = (offset, adjustment);
            keepsock_framing_kind::LengthField
        }
        _ => panic!("a framing that C does not have"),
    };
    c.kind = kind as i32;
    c
}

pub fn tuple(t: &keepsock_five_tuple) -> Tuple {
    Tuple {
        protocol: t.protocol,
        local: (field(&t.local_address), t.local_port),
        remote: (field(&t.remote_address), t.remote_port),
        text: field(&t.text),
    }
}

pub fn snap(s: &keepsock_connection_stats) -> ConnStats {
    ConnStats {
        state: s.tcp_state,
        close_reason: close_reason(s.close_reason),
        rtt_us: s.rtt_us,
        rtt_variation_us: s.rtt_variation_us,
        min_rtt_us: s.min_rtt_us,
        last_sent_us: s.last_sent_us,
        last_received_us: s.last_received_us,
        retransmits: s.retransmits,
        unacknowledged: s.unacknowledged,
        unsent: s.unsent,
        unread: s.unread,
        bytes_sent: s.bytes_sent,
        bytes_received: s.bytes_received,
        segments_sent: s.segments_sent,
        segments_received: s.segments_received,
        mss: s.mss.into(),
        congestion_window: s.congestion_window,
        peer_window: s.peer_window,
        heartbeats: s.heartbeats,
        congestion_control: field(&s.congestion_control),
        user_timeout_ms: s.user_timeout_ms,
        is_mptcp: s.is_mptcp,
    }
}

pub struct Options(pub *mut keepsock_options);

impl Drop for Options {
    fn drop(&mut self) {
        unsafe { keepsock_options_free(self.0) };
    }
}

pub fn options(list: &[Opt<'_, CApi>]) -> Outcome<Options> {
    let mut o = null_mut();
    call(|e| unsafe { keepsock_options_new(&raw mut o, e) })?;
    let o = Options(o);
    let p = o.0;
    for option in list {
        call(|e| unsafe {
            match option {
                Opt::Keepalive(idle, interval, count) => {
                    keepsock_options_set_keepalive(p, *idle, *interval, *count, e)
                }
                Opt::NoKeepalive => keepsock_options_set_keepalive(p, KEEPSOCK_INFINITE, 0, 0, e),
                Opt::Nodelay(on) => keepsock_options_set_nodelay(p, *on, e),
                Opt::ConnectTimeout(t) => keepsock_options_set_connect_timeout(p, *t, e),
                Opt::ReadTimeout(t) => keepsock_options_set_read_timeout(p, *t, e),
                Opt::WriteTimeout(t) => keepsock_options_set_write_timeout(p, *t, e),
                Opt::CloseTimeout(t) => keepsock_options_set_close_timeout(p, *t, e),
                Opt::Family(family) => keepsock_options_set_family(p, *family as i32, e),
                Opt::Local(local) => keepsock_options_set_local_endpoint(p, c(local).as_ptr(), e),
                Opt::Interface(name) => keepsock_options_set_interface(p, c(name).as_ptr(), e),
                Opt::Address(address) => {
                    keepsock_options_add_remote_address(p, c(&address.to_string()).as_ptr(), e)
                }
                Opt::FastOpen(on) => keepsock_options_set_fast_open(p, *on, e),
                Opt::Mptcp(on) => keepsock_options_set_mptcp(p, *on, e),
                #[cfg(feature = "datagram")]
                Opt::UdpGro(on) => keepsock_options_set_udp_gro(p, *on, e),
                Opt::AttemptDelay(t) => keepsock_options_set_attempt_delay(p, *t, e),
                Opt::DeadAfter(t) => keepsock_options_set_dead_after(p, *t, e),
                Opt::FailOnStall(on) => keepsock_options_set_fail_on_stall(p, *on, e),
                Opt::MiddleboxTimeout(t) => keepsock_options_set_middlebox_timeout(p, *t, e),
                Opt::Heartbeat(bytes, t) => {
                    let buf = bytes.as_ptr().cast();
                    keepsock_options_set_heartbeat(p, *t, buf, bytes.len(), e)
                }
                Opt::FirstByteTimeout(t) => keepsock_options_set_first_byte_timeout(p, *t, e),
                Opt::HeartbeatTimeout(t) => keepsock_options_set_heartbeat_timeout(p, *t, e),
                Opt::IdleTimeout(t) => keepsock_options_set_idle_timeout(p, *t, e),
                Opt::IdleReceiveOnly(on) => keepsock_options_set_idle_receive_only(p, *on, e),
                Opt::KeepStats(on) => keepsock_options_set_keep_stats(p, *on, e),
                Opt::Backlog(n) => keepsock_options_set_backlog(p, *n, e),
                #[cfg(feature = "diag")]
                Opt::SaveSyn(on) => keepsock_options_set_save_syn(p, *on, e),
                #[cfg(feature = "activation")]
                Opt::Handover(on) => keepsock_options_set_handover(p, *on, e),
                Opt::Cancel(token) => keepsock_options_set_cancel(p, token.0, e),
                Opt::UnixMode(mode) => keepsock_options_set_unix_mode(p, i64::from(*mode), e),
                Opt::UnixOwner(uid, gid) => {
                    let number = |id: &Option<u32>| id.map_or(-1, i64::from);
                    keepsock_options_set_unix_owner(p, number(uid), number(gid), e)
                }
                Opt::AllowUid(uid) => keepsock_options_add_allowed_uid(p, *uid, e),
                Opt::Seqpacket(on) => keepsock_options_set_seqpacket(p, *on, e),
                Opt::PreferredFamily(family) => {
                    keepsock_options_set_preferred_family(p, *family as i32, e)
                }
                Opt::TrustedProxy(network) => {
                    keepsock_options_add_trusted_proxy(p, c(network).as_ptr(), e)
                }
                Opt::ProxyTimeout(t) => keepsock_options_set_proxy_timeout(p, *t, e),
                Opt::ProxyHeader(version, addresses) => {
                    let pair = addresses.map(|(from, to)| (to_c(from), to_c(to)));
                    let pointer = |a: &keepsock_address| std::ptr::from_ref(a);
                    let from = pair.as_ref().map_or(null(), |(a, _)| pointer(a));
                    let to = pair.as_ref().map_or(null(), |(_, a)| pointer(a));
                    keepsock_options_set_proxy_header(p, *version, from, to, e)
                }
                Opt::Sockopt(option, value) => {
                    keepsock_options_set_sockopt(p, *option as i32, *value, e)
                }
                Opt::Defaults => {
                    let none = std::ptr::null;
                    [
                        keepsock_options_set_local_endpoint(p, none(), e),
                        keepsock_options_set_interface(p, none(), e),
                        keepsock_options_set_congestion_control(p, none(), e),
                        keepsock_options_set_backlog(p, 0, e),
                        keepsock_options_set_unix_mode(p, -1, e),
                        keepsock_options_set_unix_owner(p, -1, -1, e),
                    ]
                    .into_iter()
                    .find(|status| *status != 0)
                    .unwrap_or(0)
                }
                Opt::CongestionControl(name) => {
                    keepsock_options_set_congestion_control(p, c(name).as_ptr(), e)
                }
                Opt::RawSockopt(level, name, value) => {
                    let (data, len) = (value.as_ptr().cast(), value.len());
                    keepsock_options_set_raw_sockopt(p, *level, *name, data, len, e)
                }
            }
        })?;
    }
    Ok(o)
}

pub struct CClient {
    pub pointer: *mut keepsock_client,
    /// The library frees a handler's connection.
    pub lent: bool,
}

pub struct CConnecting {
    pub pointer: *mut keepsock_pending_connect,
    /// The targets of `user`, which must not move.
    #[allow(clippy::vec_box)]
    watches: Vec<Box<WatchFn>>,
}

impl Drop for CConnecting {
    fn drop(&mut self) {
        unsafe { keepsock_pending_connect_free(self.pointer) };
    }
}

unsafe extern "C" fn on_watch(fd: RawFd, watch: i32, user: *mut c_void) {
    let reported = match watch {
        0 => Watched::Remove(fd),
        1 => Watched::Readable(fd),
        2 => Watched::Writable(fd),
        other => panic!("{other}"),
    };
    unsafe { (*user.cast::<WatchFn>())(reported) };
}

unsafe extern "C" fn on_timeout(timeout_ms: i64, user: *mut c_void) {
    unsafe { (*user.cast::<WatchFn>())(Watched::Timeout(timeout_ms)) };
}

impl PendingConnect<CApi> for CConnecting {
    fn finish(&mut self) -> Outcome<Option<CClient>> {
        let mut out = null_mut();
        match call(|e| unsafe { keepsock_pending_connect_finish(self.pointer, &raw mut out, e) }) {
            Ok(()) => Ok(Some(CClient::new(out))),
            Err(failure) if failure.is(keepsock::ErrorKind::WouldBlock) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    fn wait(&mut self) -> Outcome<CClient> {
        let mut out = null_mut();
        call(|e| unsafe { keepsock_pending_connect_wait(self.pointer, &raw mut out, e) })?;
        Ok(CClient::new(out))
    }

    fn fd(&mut self) -> Outcome<RawFd> {
        let mut fd = NO_FD;
        call(|e| unsafe { keepsock_pending_connect_fd(self.pointer, &raw mut fd, e) })?;
        Ok(fd)
    }

    fn socket(&mut self) -> Outcome<RawFd> {
        let mut fd = NO_FD;
        call(|e| unsafe { keepsock_pending_connect_socket(self.pointer, &raw mut fd, e) })?;
        Ok(fd)
    }

    fn set_watch(&mut self, watch: WatchFn) -> Outcome<()> {
        let mut watch = Box::new(watch);
        let (user, pointer) = ((&raw mut *watch).cast(), self.pointer);
        // The object calls the callback before it is replaced.
        self.watches.push(watch);
        call(|e| unsafe {
            keepsock_pending_connect_set_watch(pointer, Some(on_watch), Some(on_timeout), user, e)
        })
    }

    fn timeout(&mut self) -> i64 {
        let mut ms = 0;
        call(|e| unsafe { keepsock_pending_connect_next_timeout(self.pointer, &raw mut ms, e) })
            .unwrap();
        ms
    }

    fn attempts(&mut self) -> Vec<Tried> {
        let ended = self.all_attempts().into_iter().filter(|a| a.status != IN_PROGRESS);
        ended.map(|a| tried(&a)).collect()
    }

    fn attempts_in_progress(&mut self) -> Vec<(String, i32, i64)> {
        let attempts = self.all_attempts().into_iter();
        let attempts = attempts.filter(|a| a.status == IN_PROGRESS);
        let describe = |a: keepsock_attempt| {
            assert_eq!((&*field(&a.stage), a.os_error), ("connect", 0));
            (field(&a.address), a.tcp_state, a.elapsed_us)
        };
        attempts.map(describe).collect()
    }
}

/// The status of an attempt in progress: KEEPSOCK_ERR_WOULD_BLOCK.
const IN_PROGRESS: i32 = keepsock::ErrorKind::WouldBlock.code();

impl CConnecting {
    fn all_attempts(&mut self) -> Vec<keepsock_attempt> {
        all_until_not_found(|i| {
            let mut a: keepsock_attempt = unsafe { std::mem::zeroed() };
            let size = size_of_val(&a);
            call(|e| unsafe {
                keepsock_pending_connect_attempt(self.pointer, i, &raw mut a, size, e)
            })?;
            Ok(a)
        })
    }
}

fn to_c(address: SocketAddr) -> keepsock_address {
    let mut out = unsafe { std::mem::zeroed() };
    let text = c(&address.to_string());
    call(|e| unsafe { keepsock_address_parse(text.as_ptr(), &raw mut out, e) }).unwrap();
    out
}

/// The addresses that a lookup stores.
fn found(
    call: impl FnOnce(*mut keepsock_address, usize, *mut usize) -> Outcome<()>,
) -> Outcome<Vec<SocketAddr>> {
    let mut array: [keepsock_address; 8] = unsafe { std::mem::zeroed() };
    let mut count = usize::MAX;
    call(array.as_mut_ptr(), array.len(), &raw mut count)?;
    Ok(array[..count].iter().map(|a| text_of(a).parse().unwrap()).collect())
}

pub(super) fn text_of(a: &keepsock_address) -> String {
    let mut text = [0; 64];
    let error = null_mut();
    let status =
        unsafe { keepsock_address_text(a, text.as_mut_ptr(), text.len(), null_mut(), error) };
    assert_eq!(status, KEEPSOCK_OK);
    field(&text)
}

pub struct CLookup(pub *mut keepsock_pending_lookup);

impl Drop for CLookup {
    fn drop(&mut self) {
        unsafe { keepsock_pending_lookup_free(self.0) };
    }
}

impl PendingLookup for CLookup {
    fn finish(&mut self) -> Outcome<Option<Vec<SocketAddr>>> {
        let result = found(|first, cap, count| {
            call(|e| unsafe { keepsock_pending_lookup_finish(self.0, first, cap, count, e) })
        });
        match result {
            Ok(addresses) => Ok(Some(addresses)),
            Err(failure) if failure.is(keepsock::ErrorKind::WouldBlock) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    fn wait(&mut self) -> Outcome<Vec<SocketAddr>> {
        found(|first, cap, count| {
            call(|e| unsafe { keepsock_pending_lookup_wait(self.0, first, cap, count, e) })
        })
    }

    fn fd(&mut self) -> Outcome<RawFd> {
        let mut fd = NO_FD;
        call(|e| unsafe { keepsock_pending_lookup_fd(self.0, &raw mut fd, e) }).map(|()| fd)
    }

    fn timeout(&mut self) -> i64 {
        let mut ms = 0;
        call(|e| unsafe { keepsock_pending_lookup_next_timeout(self.0, &raw mut ms, e) }).unwrap();
        ms
    }
}

fn tried(a: &keepsock_attempt) -> Tried {
    Tried {
        address: field(&a.address),
        stage: field(&a.stage),
        status: a.status,
        os_error: a.os_error,
        elapsed_us: a.elapsed_us,
    }
}

pub struct CServer(pub *mut keepsock_server);

pub struct CToken(pub *mut keepsock_cancel_token);

pub struct CReconnect {
    pub pointer: *mut keepsock_reconnect,
    /// The target of `user`.
    pub told: Option<Box<OnRetry>>,
    /// The targets of `user`, which must not move.
    #[allow(clippy::vec_box)]
    watches: Vec<Box<WatchFn>>,
}

// The header: one thread at a time.
unsafe impl Send for CReconnect {}

impl Drop for CReconnect {
    fn drop(&mut self) {
        unsafe { keepsock_reconnect_free(self.pointer) };
    }
}

// The header: any number of threads may be in calls on each of these objects.
unsafe impl Send for CClient {}
unsafe impl Sync for CClient {}
unsafe impl Send for CServer {}
unsafe impl Sync for CServer {}
unsafe impl Send for CToken {}
unsafe impl Sync for CToken {}
impl Drop for CClient {
    fn drop(&mut self) {
        if !self.lent {
            unsafe { keepsock_client_free(self.pointer) };
        }
    }
}

impl Drop for CServer {
    fn drop(&mut self) {
        unsafe { keepsock_server_free(self.0) };
    }
}

impl Drop for CToken {
    fn drop(&mut self) {
        unsafe { keepsock_cancel_token_free(self.0) };
    }
}

impl CClient {
    pub fn c_five_tuple(&self) -> keepsock_five_tuple {
        let mut t: keepsock_five_tuple = unsafe { std::mem::zeroed() };
        call(|e| unsafe {
            keepsock_client_five_tuple(self.pointer, &raw mut t, size_of_val(&t), e)
        })
        .unwrap();
        t
    }

    pub fn new(pointer: *mut keepsock_client) -> CClient {
        assert!(!pointer.is_null());
        CClient { pointer, lent: false }
    }
}

impl Api for CApi {
    type Client = CClient;
    type Server = CServer;
    type Token = CToken;
    type PendingConnect = CConnecting;
    type PendingLookup = CLookup;
    #[cfg(feature = "serve")]
    type Service = CService;
    #[cfg(feature = "serve")]
    type Connection = CConnection;
    type Reconnect = CReconnect;
    #[cfg(feature = "datagram")]
    type Datagram = CDatagram;
    #[cfg(all(feature = "datagram", feature = "serve"))]
    type DatagramService = CDatagramService;
    #[cfg(feature = "activation")]
    type Activation = CInherited;

    const NUMBER: u8 = 2;

    fn connect(endpoint: &str, list: &[Opt<'_, Self>]) -> Outcome<CClient> {
        let (endpoint, options) = (c(endpoint), options(list)?);
        let mut out = null_mut();
        call(|e| unsafe {
            keepsock_client_connect(endpoint.as_ptr(), options.0, &raw mut out, e)
        })?;
        Ok(CClient::new(out))
    }

    fn connect_host(host: &str, port: u16, list: &[Opt<'_, Self>]) -> Outcome<CClient> {
        let (host, options) = (c(host), options(list)?);
        let mut out = null_mut();
        call(|e| unsafe {
            keepsock_client_connect_host(host.as_ptr(), port, options.0, &raw mut out, e)
        })?;
        Ok(CClient::new(out))
    }

    fn listen(endpoint: &str, list: &[Opt<'_, Self>]) -> Outcome<CServer> {
        let (endpoint, options) = (c(endpoint), options(list)?);
        let mut out = null_mut();
        call(|e| unsafe { keepsock_server_listen(endpoint.as_ptr(), options.0, &raw mut out, e) })?;
        Ok(CServer(out))
    }

    fn listen_all(endpoints: &[&str], list: &[Opt<'_, Self>]) -> Outcome<CServer> {
        let endpoints: Vec<_> = endpoints.iter().map(|e| c(e)).collect();
        let pointers: Vec<_> = endpoints.iter().map(|e| e.as_ptr()).collect();
        let options = options(list)?;
        let mut out = null_mut();
        call(|e| unsafe {
            let (first, count) = (pointers.as_ptr(), pointers.len());
            keepsock_server_listen_all(first, count, options.0, &raw mut out, e)
        })?;
        Ok(CServer(out))
    }

    fn start(endpoint: &str, list: &[Opt<'_, Self>]) -> Outcome<CConnecting> {
        let (endpoint, options) = (c(endpoint), options(list)?);
        let mut out = null_mut();
        call(|e| unsafe {
            keepsock_pending_connect_start(endpoint.as_ptr(), options.0, &raw mut out, e)
        })?;
        Ok(CConnecting { pointer: out, watches: Vec::new() })
    }

    fn lookup(endpoint: &str, list: &[Opt<'_, Self>]) -> Outcome<Vec<SocketAddr>> {
        let (endpoint, options) = (c(endpoint), options(list)?);
        found(|first, cap, count| {
            call(|e| unsafe { keepsock_lookup(endpoint.as_ptr(), options.0, first, cap, count, e) })
        })
    }

    fn start_lookup(endpoint: &str, list: &[Opt<'_, Self>]) -> Outcome<CLookup> {
        let (endpoint, options) = (c(endpoint), options(list)?);
        let mut out = null_mut();
        call(|e| unsafe {
            keepsock_pending_lookup_start(endpoint.as_ptr(), options.0, &raw mut out, e)
        })?;
        Ok(CLookup(out))
    }

    fn adopt_client(fd: OwnedFd, list: &[Opt<'_, Self>]) -> Result<CClient, (OwnedFd, Failure)> {
        let options = options(list).unwrap();
        let mut out = null_mut();
        let taken = call(|e| unsafe {
            keepsock_client_from_fd(fd.as_raw_fd(), options.0, &raw mut out, e)
        });
        if let Err(failure) = taken {
            return Err((fd, failure));
        }
        let _ = fd.into_raw_fd();
        Ok(CClient::new(out))
    }

    fn adopt_server(fd: OwnedFd, list: &[Opt<'_, Self>]) -> Result<CServer, (OwnedFd, Failure)> {
        let options = options(list).unwrap();
        let mut out = null_mut();
        let taken = call(|e| unsafe {
            keepsock_server_from_fd(fd.as_raw_fd(), options.0, &raw mut out, e)
        });
        if let Err(failure) = taken {
            return Err((fd, failure));
        }
        let _ = fd.into_raw_fd();
        Ok(CServer(out))
    }

    fn try_token() -> Outcome<CToken> {
        let mut out = null_mut();
        call(|e| unsafe { keepsock_cancel_token_new(&raw mut out, e) })?;
        Ok(CToken(out))
    }

    fn reconnect(endpoint: &str, list: &[Opt<'_, Self>]) -> Outcome<CReconnect> {
        let (endpoint, options) = (c(endpoint), options(list)?);
        let mut out = null_mut();
        call(|e| unsafe { keepsock_reconnect_new(endpoint.as_ptr(), options.0, &raw mut out, e) })?;
        Ok(CReconnect { pointer: out, told: None, watches: Vec::new() })
    }
}

impl Client<CApi> for CClient {
    fn read(&self, buf: &mut [u8]) -> Outcome<usize> {
        let mut n = 0;
        call(|e| unsafe {
            keepsock_client_read(self.pointer, buf.as_mut_ptr().cast(), buf.len(), &raw mut n, e)
        })?;
        Ok(n)
    }

    fn read_exact(&self, buf: &mut [u8]) -> Outcome<()> {
        call(|e| unsafe {
            keepsock_client_read_exact(self.pointer, buf.as_mut_ptr().cast(), buf.len(), e)
        })
    }

    fn read_until(&self, delimiter: u8, max: usize) -> Outcome<Vec<u8>> {
        let (mut buf, mut n) = (vec![0u8; max], 0);
        call(|e| unsafe {
            let space = buf.as_mut_ptr().cast();
            keepsock_client_read_until(self.pointer, delimiter, space, max, &raw mut n, e)
        })?;
        buf.truncate(n);
        Ok(buf)
    }

    fn read_line(&self, max: usize) -> Outcome<String> {
        let (mut buf, mut n) = (vec![0xffu8; max + 1], 0);
        call(|e| unsafe {
            let space = buf.as_mut_ptr().cast();
            keepsock_client_read_line(self.pointer, space, buf.len(), &raw mut n, e)
        })?;
        assert_eq!(buf[n], 0, "a NUL ends the line");
        Ok(String::from_utf8_lossy(&buf[..n]).into_owned())
    }

    fn read_message(&self, framing: &Framing) -> Outcome<Vec<u8>> {
        let framing = framing_to_c(framing);
        // Room for each message of the framing, within a limit. Without framing there is no maximum.
        let cap = match framing.max.max(framing.len) {
            0 => 64 << 10,
            most => most.min(4 << 20),
        };
        let (mut buf, mut n) = (vec![0u8; cap], 0);
        call(|e| unsafe {
            let (framing, space) = (&raw const framing, buf.as_mut_ptr().cast());
            keepsock_client_read_message(self.pointer, framing, space, cap, &raw mut n, e)
        })?;
        buf.truncate(n);
        Ok(buf)
    }

    fn write_message(&self, framing: &Framing, message: &[u8]) -> Outcome<()> {
        let framing = framing_to_c(framing);
        call(|e| unsafe {
            let (buf, len) = (message.as_ptr().cast(), message.len());
            keepsock_client_write_message(self.pointer, &raw const framing, buf, len, e)
        })
    }

    fn buffered(&self) -> usize {
        unsafe { keepsock_client_buffered(self.pointer) }
    }

    fn write(&self, buf: &[u8]) -> Outcome<usize> {
        let mut n = 0;
        call(|e| unsafe {
            keepsock_client_write(self.pointer, buf.as_ptr().cast(), buf.len(), &raw mut n, e)
        })?;
        Ok(n)
    }

    fn write_all(&self, buf: &[u8]) -> Outcome<()> {
        call(|e| unsafe {
            keepsock_client_write_all(self.pointer, buf.as_ptr().cast(), buf.len(), e)
        })
    }

    fn peek(&self, buf: &mut [u8]) -> Outcome<usize> {
        let mut n = 0;
        call(|e| unsafe {
            keepsock_client_peek(self.pointer, buf.as_mut_ptr().cast(), buf.len(), &raw mut n, e)
        })?;
        Ok(n)
    }

    fn read_slices(&self, bufs: &mut [&mut [u8]]) -> Outcome<usize> {
        let buffers: Vec<_> = bufs
            .iter_mut()
            .map(|b| keepsock_buffer {
                buf: if b.is_empty() { null_mut() } else { b.as_mut_ptr().cast() },
                cap: b.len(),
            })
            .collect();
        let mut len = 0;
        call(|e| unsafe {
            let (first, count) = (buffers.as_ptr(), buffers.len());
            keepsock_client_read_slices(self.pointer, first, count, &raw mut len, e)
        })?;
        Ok(len)
    }

    fn write_slices(&self, bufs: &[&[u8]]) -> Outcome<()> {
        let slices: Vec<_> = bufs
            .iter()
            .map(|b| keepsock_slice {
                buf: if b.is_empty() { null() } else { b.as_ptr().cast() },
                len: b.len(),
            })
            .collect();
        call(|e| unsafe {
            keepsock_client_write_slices(self.pointer, slices.as_ptr(), slices.len(), e)
        })
    }

    fn wait_hangup(&self, ms: i64) -> Outcome<CloseReason> {
        let mut how = 0;
        call(|e| unsafe { keepsock_client_wait_hangup(self.pointer, ms, &raw mut how, e) })?;
        Ok(close_reason(how).expect("a value of keepsock_close_reason"))
    }

    fn close_reason(&self) -> Option<CloseReason> {
        close_reason(unsafe { keepsock_client_close_reason(self.pointer) })
    }

    fn check_liveness(&self) -> Outcome<i64> {
        let mut next = 0;
        call(|e| unsafe { keepsock_client_check_liveness(self.pointer, &raw mut next, e) })?;
        Ok(next)
    }

    fn stats(&self) -> Outcome<ConnStats> {
        let mut s: keepsock_connection_stats = unsafe { std::mem::zeroed() };
        call(|e| unsafe {
            keepsock_client_get_stats(self.pointer, &raw mut s, size_of_val(&s), e)
        })?;
        Ok(snap(&s))
    }

    fn shutdown_write(&self) -> Outcome<()> {
        call(|e| unsafe { keepsock_client_shutdown_write(self.pointer, e) })
    }

    fn close(&self) -> Outcome<()> {
        call(|e| unsafe { keepsock_client_close(self.pointer, e) })
    }

    fn abort(&self) {
        call(|e| unsafe { keepsock_client_abort(self.pointer, e) }).unwrap();
    }

    fn keepalive(&self) -> Outcome<Option<(i64, i64, u32)>> {
        let mut k: keepsock_keepalive = unsafe { std::mem::zeroed() };
        call(|e| unsafe {
            keepsock_client_keepalive(self.pointer, &raw mut k, size_of_val(&k), e)
        })?;
        Ok(k.enabled.then_some((k.idle_ms, k.interval_ms, k.count)))
    }

    fn keepalive_values(&self) -> Outcome<(i64, i64, u32)> {
        let mut k: keepsock_keepalive = unsafe { std::mem::zeroed() };
        let size = size_of_val(&k);
        call(|e| unsafe { keepsock_client_keepalive(self.pointer, &raw mut k, size, e) })?;
        Ok((k.idle_ms, k.interval_ms, k.count))
    }

    fn set_keepalive(&self, idle: i64, interval: i64, count: u32) -> Outcome<()> {
        call(|e| unsafe { keepsock_client_set_keepalive(self.pointer, idle, interval, count, e) })
    }

    fn disable_keepalive(&self) -> Outcome<()> {
        call(|e| unsafe { keepsock_client_set_keepalive(self.pointer, KEEPSOCK_INFINITE, 0, 0, e) })
    }

    fn set_dead_after(&self, ms: i64) -> Outcome<()> {
        call(|e| unsafe { keepsock_client_set_dead_after(self.pointer, ms, e) })
    }

    fn set_idle_timeout(&self, ms: i64) -> Outcome<()> {
        call(|e| unsafe { keepsock_client_set_idle_timeout(self.pointer, ms, e) })
    }

    fn set_heartbeat(&self, bytes: &[u8], every_ms: i64) -> Outcome<()> {
        let (at, len) = (bytes.as_ptr().cast(), bytes.len());
        call(|e| unsafe { keepsock_client_set_heartbeat(self.pointer, every_ms, at, len, e) })
    }

    fn set_heartbeat_timeout(&self, ms: i64) -> Outcome<()> {
        call(|e| unsafe { keepsock_client_set_heartbeat_timeout(self.pointer, ms, e) })
    }

    fn set_read_timeout(&self, ms: i64) -> Outcome<()> {
        call(|e| unsafe { keepsock_client_set_read_timeout(self.pointer, ms, e) })
    }

    fn set_write_timeout(&self, ms: i64) -> Outcome<()> {
        call(|e| unsafe { keepsock_client_set_write_timeout(self.pointer, ms, e) })
    }

    fn set_close_timeout(&self, ms: i64) {
        call(|e| unsafe { keepsock_client_set_close_timeout(self.pointer, ms, e) }).unwrap();
    }

    fn set_nonblocking(&self, on: bool) -> Outcome<()> {
        call(|e| unsafe { keepsock_client_set_nonblocking(self.pointer, on, e) })
    }

    fn set_cancel(&self, token: Option<&CToken>) {
        let token = token.map_or(null_mut(), |t| t.0);
        call(|e| unsafe { keepsock_client_set_cancel(self.pointer, token, e) }).unwrap();
    }

    fn set_sockopt(&self, option: Sockopt, value: u32) -> Outcome<()> {
        call(|e| unsafe { keepsock_client_set_sockopt(self.pointer, option as i32, value, e) })
    }

    fn sockopt(&self, option: Sockopt) -> Outcome<u32> {
        let mut value = 0;
        call(|e| unsafe {
            keepsock_client_sockopt(self.pointer, option as i32, &raw mut value, e)
        })?;
        Ok(value)
    }

    fn read_proxy_header(&self) -> Outcome<()> {
        call(|e| unsafe { keepsock_client_read_proxy_header(self.pointer, e) })
    }

    fn proxy_address(&self) -> Option<String> {
        let mut address: keepsock_address = unsafe { std::mem::zeroed() };
        let found =
            call(|e| unsafe { keepsock_client_proxy_address(self.pointer, &raw mut address, e) });
        match found {
            Ok(()) => Some(text_of(&address)),
            Err(failure) => {
                assert!(failure.is(keepsock::ErrorKind::NotFound), "{failure:?}");
                None
            }
        }
    }

    fn five_tuple(&self) -> Tuple {
        tuple(&self.c_five_tuple())
    }

    fn fd(&self) -> Outcome<RawFd> {
        let mut fd = NO_FD;
        call(|e| unsafe { keepsock_client_fd(self.pointer, &raw mut fd, e) })?;
        Ok(fd)
    }

    fn another(&self) -> CClient {
        let mut out = null_mut();
        call(|e| unsafe { keepsock_client_ref(self.pointer, &raw mut out, e) }).unwrap();
        CClient::new(out)
    }

    fn release(&self) -> Outcome<OwnedFd> {
        let mut fd = NO_FD;
        call(|e| unsafe { keepsock_client_release_fd(self.pointer, &raw mut fd, e) })?;
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    fn write_fds(&self, bytes: &[u8], fds: &[RawFd]) -> Outcome<usize> {
        let mut written = usize::MAX;
        let (buf, fds, count) = (bytes.as_ptr().cast(), fds.as_ptr(), fds.len());
        call(|e| unsafe {
            let written = &raw mut written;
            keepsock_client_send_fds(self.pointer, buf, bytes.len(), fds, count, written, e)
        })?;
        Ok(written)
    }

    fn read_fds(&self, cap: usize, max: usize) -> Outcome<Passed> {
        let (mut bytes, mut fds) = (vec![0u8; cap], vec![NO_FD; max]);
        let (mut len, mut count, mut truncated) = (usize::MAX, usize::MAX, false);
        let (buf, first) = (bytes.as_mut_ptr().cast(), fds.as_mut_ptr());
        call(|e| unsafe {
            let (len, count, cut) = (&raw mut len, &raw mut count, &raw mut truncated);
            keepsock_client_recv_fds(self.pointer, buf, cap, first, max, len, count, cut, e)
        })?;
        bytes.truncate(len);
        fds.truncate(count);
        let fds = fds.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }).collect();
        Ok(Passed { bytes, fds, truncated })
    }

    fn peer_credentials(&self) -> Outcome<Peer> {
        let mut peer: keepsock_credentials = unsafe { std::mem::zeroed() };
        let size = size_of_val(&peer);
        call(|e| unsafe {
            keepsock_client_peer_credentials(self.pointer, &raw mut peer, size, e)
        })?;
        Ok(Peer { pid: peer.pid, uid: peer.uid, gid: peer.gid })
    }

    fn send_file(&self, file: RawFd, offset: u64, len: u64) -> Outcome<u64> {
        let mut sent = u64::MAX;
        call(|e| unsafe {
            keepsock_client_send_file(self.pointer, file, offset, len, &raw mut sent, e)
        })?;
        Ok(sent)
    }
}

impl Server<CApi> for CServer {
    fn accept(&self) -> Outcome<CClient> {
        let mut out = null_mut();
        call(|e| unsafe { keepsock_server_accept(self.0, &raw mut out, e) })?;
        Ok(CClient::new(out))
    }

    fn endpoint(&self) -> String {
        sized_text(|buf, cap, required, e| unsafe {
            keepsock_server_endpoint(self.0, 0, buf, cap, required, e)
        })
    }

    fn endpoints(&self) -> Vec<String> {
        let one = |index| {
            let mut buf = [0; KEEPSOCK_TEXT_SIZE as usize];
            call(|e| unsafe {
                let (buf, cap) = (buf.as_mut_ptr(), buf.len());
                keepsock_server_endpoint(self.0, index, buf, cap, null_mut(), e)
            })
            .map(|()| field(&buf))
        };
        all_until_not_found(one)
    }

    fn port(&self) -> u16 {
        unsafe { keepsock_server_port(self.0) }
    }

    fn stats(&self) -> Counters {
        let mut n: keepsock_server_stats = unsafe { std::mem::zeroed() };
        call(|e| unsafe { keepsock_server_get_stats(self.0, &raw mut n, size_of_val(&n), e) })
            .unwrap();
        Counters {
            accepted: n.accepted,
            retried: n.retried,
            exhausted: n.exhausted,
            rejected: n.rejected,
            over_address_limit: n.over_address_limit,
            denied: n.denied,
            proxy_rejected: n.proxy_rejected,
        }
    }

    fn set_accept_timeout(&self, ms: i64) -> Outcome<()> {
        call(|e| unsafe { keepsock_server_set_accept_timeout(self.0, ms, e) })
    }

    fn set_nonblocking(&self, on: bool) -> Outcome<()> {
        call(|e| unsafe { keepsock_server_set_nonblocking(self.0, on, e) })
    }

    fn set_cancel(&self, token: Option<&CToken>) -> Outcome<()> {
        let token = token.map_or(null_mut(), |t| t.0);
        call(|e| unsafe { keepsock_server_set_cancel(self.0, token, e) })
    }

    fn fd(&self) -> Outcome<RawFd> {
        let mut fd = NO_FD;
        call(|e| unsafe { keepsock_server_fd(self.0, 0, &raw mut fd, e) })?;
        Ok(fd)
    }

    fn fd_at(&self, index: usize) -> Outcome<RawFd> {
        let mut fd = NO_FD;
        call(|e| unsafe { keepsock_server_fd(self.0, index, &raw mut fd, e) })?;
        Ok(fd)
    }

    fn release(&self) -> Outcome<OwnedFd> {
        let mut fd = NO_FD;
        call(|e| unsafe { keepsock_server_release_fd(self.0, &raw mut fd, e) })?;
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    fn close(&self) {
        call(|e| unsafe { keepsock_server_close(self.0, e) }).unwrap();
    }

    #[cfg(feature = "serve")]
    fn serve(&self, list: &[Serve], handler: Handler<CApi>) -> Outcome<CService> {
        CService::serve(self, list, handler)
    }

    #[cfg(feature = "serve")]
    fn serve_events(&self, list: &[Serve], on: On<CApi>) -> Outcome<CService> {
        CService::serve_events(self, list, on)
    }
}

impl Token for CToken {
    fn fd(&self) -> Outcome<RawFd> {
        let mut fd = NO_FD;
        call(|e| unsafe { keepsock_cancel_token_fd(self.0, &raw mut fd, e) }).map(|()| fd)
    }

    fn fire(&self) {
        unsafe { keepsock_cancel_token_fire(self.0) };
    }

    fn reset(&self) {
        unsafe { keepsock_cancel_token_reset(self.0) };
    }

    fn is_fired(&self) -> bool {
        unsafe { keepsock_cancel_token_is_fired(self.0) }
    }
}

/// Collects the results of `one` for 0, 1 and so on, until no element has the index.
#[track_caller]
pub fn all_until_not_found<T>(one: impl Fn(usize) -> Outcome<T>) -> Vec<T> {
    let mut all = Vec::new();
    loop {
        match one(all.len()) {
            Ok(element) => all.push(element),
            Err(failure) => {
                assert!(failure.is(keepsock::ErrorKind::NotFound), "{failure:?}");
                return all;
            }
        }
    }
}

/// Reads a text through the caller's buffer: requests the size first, then the text.
#[track_caller]
pub fn sized_text(
    get: impl Fn(*mut c_char, usize, *mut usize, *mut *mut keepsock_error) -> i32,
) -> String {
    let mut needed = 0;
    let refused = call(|e| get(null_mut(), 0, &raw mut needed, e)).unwrap_err();
    assert!(refused.is(keepsock::ErrorKind::TooLong) && needed > 0, "{refused:?}");
    // The text may have grown in the meantime.
    let mut buf = vec![!0 as c_char; needed + 4096];
    call(|e| get(buf.as_mut_ptr(), buf.len(), &raw mut needed, e)).unwrap();
    let text = field(&buf);
    assert_eq!(text.len() + 1, needed);
    text
}

impl Reconnect<CApi> for CReconnect {
    fn set_backoff(&mut self, first: i64, longest: i64) -> Outcome<()> {
        call(|e| unsafe { keepsock_reconnect_set_backoff(self.pointer, first, longest, e) })
    }

    fn set_limit(&mut self, ms: i64) -> Outcome<()> {
        call(|e| unsafe { keepsock_reconnect_set_timeout(self.pointer, ms, e) })
    }

    fn on_retry(&mut self, told: OnRetry) {
        unsafe extern "C" fn tell(
            error: *const keepsock_error,
            tries: u32,
            wait_ms: i64,
            user: *mut c_void,
        ) {
            let told = unsafe { &mut *user.cast::<OnRetry>() };
            let error = (!error.is_null()).then(|| unsafe { failure(error) });
            told(Told { error, tries, wait_ms });
        }
        let told = self.told.insert(Box::new(told));
        let user: *mut OnRetry = &raw mut **told;
        call(|e| unsafe {
            keepsock_reconnect_set_on_retry(self.pointer, Some(tell), user.cast(), e)
        })
        .unwrap();
    }

    fn reset(&mut self) {
        call(|e| unsafe { keepsock_reconnect_reset(self.pointer, e) }).unwrap();
    }

    fn connect(&mut self) -> Outcome<CClient> {
        let mut out = null_mut();
        call(|e| unsafe { keepsock_reconnect_connect(self.pointer, &raw mut out, e) })?;
        Ok(CClient::new(out))
    }

    fn try_connect(&mut self) -> Outcome<Option<CClient>> {
        let mut out = null_mut();
        match call(|e| unsafe { keepsock_reconnect_try_connect(self.pointer, &raw mut out, e) }) {
            Ok(()) => Ok(Some(CClient::new(out))),
            Err(failure) if failure.is(keepsock::ErrorKind::WouldBlock) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    fn next_timeout(&mut self) -> i64 {
        let mut ms = 0;
        call(|e| unsafe { keepsock_reconnect_next_timeout(self.pointer, &raw mut ms, e) }).unwrap();
        ms
    }

    fn set_watch(&mut self, watch: WatchFn) {
        let mut watch = Box::new(watch);
        let (user, pointer) = ((&raw mut *watch).cast(), self.pointer);
        // The object calls the callback before it is replaced.
        self.watches.push(watch);
        call(|e| unsafe {
            keepsock_reconnect_set_watch(pointer, Some(on_watch), Some(on_timeout), user, e)
        })
        .unwrap();
    }
}
