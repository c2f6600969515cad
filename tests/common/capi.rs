//! The C API as an [`Api`]: the functions of keepsock.h, called as C calls them.

// Calling C functions is what this file is for.
#![allow(unsafe_code, clippy::undocumented_unsafe_blocks)]

use std::ffi::{CStr, CString, c_char, c_void};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::ptr::{null, null_mut};
use std::time::{Duration, SystemTime};

use keepsock::ffi::*;
use keepsock::{End, Framing, LengthPrefix};

use super::{
    Api, Client, Connecting, Connection, Counters, DatagramService, DatagramStats, Datagrams,
    Failure, Got, Handed, Handler, Inherited, On, OnDatagram, OnRetry, Opt, Outcome, Passed, Peer,
    Reconnect, Reported, Sent, Serve, Server, Service, Snap, Stats, Token, Told, Tried, Tuple,
};

pub struct CApi;

/// Text that C lends.
pub fn text(pointer: *const c_char) -> String {
    assert!(!pointer.is_null());
    unsafe { CStr::from_ptr(pointer) }.to_str().unwrap().to_owned()
}

/// Text of a fixed field, which must end with NUL.
pub(super) fn field(chars: &[c_char]) -> String {
    let end = chars.iter().position(|c| *c == 0).expect("no NUL");
    String::from_utf8(chars[..end].iter().map(|c| *c as u8).collect()).unwrap()
}

pub(super) fn c(text: &str) -> CString {
    CString::new(text).unwrap()
}

/// Calls a function with its last argument and checks that status and error agree.
pub(super) fn call(f: impl FnOnce(*mut *mut keepsock_error) -> i32) -> Outcome<()> {
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
        Err(failure)
    }
}

/// What an error object says.
unsafe fn failure(error: *const keepsock_error) -> Failure {
    unsafe {
        let attempts = (0..keepsock_error_attempt_count(error)).map(|i| {
            let mut a: keepsock_attempt = std::mem::zeroed();
            assert_eq!(keepsock_error_attempt(error, i, &raw mut a, size_of_val(&a)), KEEPSOCK_OK);
            tried(&a)
        });
        Failure {
            status: keepsock_error_status(error),
            message: text(keepsock_error_message(error)),
            operation: text(keepsock_error_operation(error)),
            endpoint: text(keepsock_error_endpoint(error)),
            stage: text(keepsock_error_stage(error)).into(),
            os_error: keepsock_error_os_error(error),
            transferred: keepsock_error_transferred(error),
            attempts: attempts.collect(),
        }
    }
}

/// A value of keepsock_end; 0 is none.
fn end(number: i32) -> Option<End> {
    let all = [
        End::ClosedByPeer,
        End::ResetByPeer,
        End::Dead,
        End::Unreachable,
        End::Stalled,
        End::IdleLimit,
        End::HeartbeatMissed,
        End::Cancelled,
        End::ClosedHere,
        End::TooLong,
        End::Overrun,
    ];
    let known = all.into_iter().find(|end| *end as i32 == number);
    let words = text(keepsock_end_text(number));
    assert_eq!(words, known.map_or_else(String::new, |end| end.to_string()));
    assert!(known.is_some() || number == 0, "{number} is no value of keepsock_end");
    known
}

fn tuple(t: &keepsock_five_tuple) -> Tuple {
    Tuple {
        protocol: t.protocol,
        local: (field(&t.local_address), t.local_port),
        remote: (field(&t.remote_address), t.remote_port),
    }
}

fn snap(s: &keepsock_snapshot) -> Snap {
    Snap {
        state: s.state,
        end: end(s.end),
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
        mss: s.mss,
        congestion_window: s.congestion_window,
        peer_window: s.peer_window,
        heartbeats: s.heartbeats,
        congestion_control: field(&s.congestion_control),
    }
}

struct Options(*mut keepsock_options);

impl Drop for Options {
    fn drop(&mut self) {
        unsafe { keepsock_options_free(self.0) };
    }
}

fn options(list: &[Opt<'_, CApi>]) -> Outcome<Options> {
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
                Opt::NoKeepalive => keepsock_options_disable_keepalive(p, e),
                Opt::Nodelay(on) => keepsock_options_set_nodelay(p, *on, e),
                Opt::ConnectTimeout(t) => keepsock_options_set_connect_timeout(p, *t, e),
                Opt::ReadTimeout(t) => keepsock_options_set_read_timeout(p, *t, e),
                Opt::WriteTimeout(t) => keepsock_options_set_write_timeout(p, *t, e),
                Opt::CloseTimeout(t) => keepsock_options_set_close_timeout(p, *t, e),
                Opt::Family(family) => keepsock_options_set_family(p, *family as i32, e),
                Opt::Local(local) => keepsock_options_set_local(p, c(local).as_ptr(), e),
                Opt::Interface(name) => keepsock_options_set_interface(p, c(name).as_ptr(), e),
                Opt::Address(address) => {
                    keepsock_options_add_address(p, c(&address.to_string()).as_ptr(), e)
                }
                Opt::FastOpen(on) => keepsock_options_set_fast_open(p, *on, e),
                Opt::Mptcp(on) => keepsock_options_set_mptcp(p, *on, e),
                Opt::Coalescing(on) => keepsock_options_set_coalescing(p, *on, e),
                Opt::AttemptDelay(t) => keepsock_options_set_attempt_delay(p, *t, e),
                Opt::DeadAfter(t) => keepsock_options_set_dead_after(p, *t, e),
                Opt::EndStalled(on) => keepsock_options_set_end_stalled(p, *on, e),
                Opt::SurviveIdle(t) => keepsock_options_set_survive_idle(p, *t, e),
                Opt::Heartbeat(bytes, t) => {
                    let data = bytes.as_ptr().cast();
                    keepsock_options_set_heartbeat(p, data, bytes.len(), *t, e)
                }
                Opt::FirstByteLimit(t) => keepsock_options_set_first_byte_limit(p, *t, e),
                Opt::IdleLimit(t) => keepsock_options_set_idle_limit(p, *t, e),
                Opt::LastSnapshot(on) => keepsock_options_set_last_snapshot(p, *on, e),
                Opt::Backlog(n) => keepsock_options_set_backlog(p, *n, e),
                Opt::SaveSyn(on) => keepsock_options_set_save_syn(p, *on, e),
                Opt::HandOver(on) => keepsock_options_set_hand_over(p, *on, e),
                Opt::Cancel(token) => keepsock_options_set_cancel(p, token.0, e),
                Opt::UnixMode(mode) => keepsock_options_set_unix_mode(p, *mode, e),
                Opt::UnixOwner(uid, gid) => {
                    let number = |id: &Option<u32>| id.map_or(-1, i64::from);
                    keepsock_options_set_unix_owner(p, number(uid), number(gid), e)
                }
                Opt::AllowUser(uid) => keepsock_options_allow_user(p, *uid, e),
                Opt::Sequenced(on) => keepsock_options_set_sequenced(p, *on, e),
            }
        })?;
    }
    Ok(o)
}

pub struct CClient {
    pub pointer: *mut keepsock_client,
    /// A handler's connection is the library's to free.
    lent: bool,
}

pub struct CConnecting(*mut keepsock_connecting);

impl Drop for CConnecting {
    fn drop(&mut self) {
        unsafe { keepsock_connecting_free(self.0) };
    }
}

impl Connecting<CApi> for CConnecting {
    fn finish(&mut self) -> Outcome<Option<CClient>> {
        let mut out = null_mut();
        match call(|e| unsafe { keepsock_connecting_finish(self.0, &raw mut out, e) }) {
            Ok(()) => Ok(Some(CClient::new(out))),
            Err(failure) if failure.is(keepsock::ErrorKind::WouldBlock) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    fn wait(&mut self) -> Outcome<CClient> {
        let mut out = null_mut();
        call(|e| unsafe { keepsock_connecting_wait(self.0, &raw mut out, e) })?;
        Ok(CClient::new(out))
    }

    fn fd(&mut self) -> Outcome<RawFd> {
        let mut fd = -1;
        call(|e| unsafe { keepsock_connecting_fd(self.0, &raw mut fd, e) })?;
        Ok(fd)
    }

    fn timeout(&mut self) -> i64 {
        let mut ms = 0;
        call(|e| unsafe { keepsock_connecting_timeout(self.0, &raw mut ms, e) }).unwrap();
        ms
    }

    fn attempts(&mut self) -> Vec<Tried> {
        let count = unsafe { keepsock_connecting_attempt_count(self.0) };
        let attempt = |i| {
            let mut a: keepsock_attempt = unsafe { std::mem::zeroed() };
            let size = size_of_val(&a);
            call(|e| unsafe { keepsock_connecting_attempt(self.0, i, &raw mut a, size, e) })
                .unwrap();
            tried(&a)
        };
        (0..count).map(attempt).collect()
    }

    fn under_way(&mut self) -> Vec<(String, i32)> {
        let one = |i| {
            let mut a: keepsock_under_way = unsafe { std::mem::zeroed() };
            let size = size_of_val(&a);
            call(|e| unsafe { keepsock_connecting_under_way(self.0, i, &raw mut a, size, e) })
                .ok()?;
            Some((field(&a.address), a.state))
        };
        (0..).map_while(one).collect()
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

pub struct CToken(pub *mut keepsock_cancel);

pub struct CService {
    pub pointer: *mut keepsock_service,
    /// What `user` points to; lives until the service is freed.
    _user: User,
}

#[allow(dead_code)] // kept, not read
enum User {
    Handler(Box<Handler<CApi>>),
    On(Box<On<CApi>>),
}

#[derive(Clone, Copy)]
pub struct CConnection(pub *mut keepsock_connection);

// The header: any thread may call any function at any time.
unsafe impl Send for CConnection {}
unsafe impl Sync for CConnection {}

pub struct CReconnect {
    pub pointer: *mut keepsock_reconnect,
    /// What `user` points to.
    told: Option<Box<OnRetry>>,
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
unsafe impl Send for CService {}
unsafe impl Sync for CService {}

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
        unsafe { keepsock_cancel_free(self.0) };
    }
}

impl Drop for CService {
    fn drop(&mut self) {
        unsafe { keepsock_service_free(self.pointer) };
    }
}

impl CClient {
    fn new(pointer: *mut keepsock_client) -> CClient {
        assert!(!pointer.is_null());
        CClient { pointer, lent: false }
    }
}

impl Api for CApi {
    type Client = CClient;
    type Server = CServer;
    type Token = CToken;
    type Connecting = CConnecting;
    type Service = CService;
    type Connection = CConnection;
    type Reconnect = CReconnect;
    type Datagram = CDatagram;
    type DatagramService = CDatagramService;
    type Inherited = CInherited;

    const NUMBER: u8 = 2;

    fn connect(endpoint: &str, list: &[Opt<'_, Self>]) -> Outcome<CClient> {
        let (endpoint, options) = (c(endpoint), options(list)?);
        let mut out = null_mut();
        call(|e| unsafe {
            keepsock_client_connect(endpoint.as_ptr(), options.0, &raw mut out, e)
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
            keepsock_connecting_start(endpoint.as_ptr(), options.0, &raw mut out, e)
        })?;
        Ok(CConnecting(out))
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

    fn bind(endpoint: &str, list: &[Opt<'_, Self>]) -> Outcome<CDatagram> {
        let (endpoint, options) = (c(endpoint), options(list)?);
        let mut out = null_mut();
        call(|e| unsafe { keepsock_datagram_bind(endpoint.as_ptr(), options.0, &raw mut out, e) })?;
        Ok(CDatagram(out))
    }

    fn connect_datagram(endpoint: &str, list: &[Opt<'_, Self>]) -> Outcome<CDatagram> {
        let (endpoint, options) = (c(endpoint), options(list)?);
        let mut out = null_mut();
        call(|e| unsafe {
            keepsock_datagram_connect(endpoint.as_ptr(), options.0, &raw mut out, e)
        })?;
        Ok(CDatagram(out))
    }

    fn adopt_datagram(
        fd: OwnedFd,
        list: &[Opt<'_, Self>],
    ) -> Result<CDatagram, (OwnedFd, Failure)> {
        let options = options(list).unwrap();
        let mut out = null_mut();
        let taken = call(|e| unsafe {
            keepsock_datagram_from_fd(fd.as_raw_fd(), options.0, &raw mut out, e)
        });
        if let Err(failure) = taken {
            return Err((fd, failure));
        }
        let _ = fd.into_raw_fd();
        Ok(CDatagram(out))
    }

    fn token() -> CToken {
        let mut out = null_mut();
        call(|e| unsafe { keepsock_cancel_new(&raw mut out, e) }).unwrap();
        CToken(out)
    }

    fn reconnect(endpoint: &str, list: &[Opt<'_, Self>]) -> Outcome<CReconnect> {
        let (endpoint, options) = (c(endpoint), options(list)?);
        let mut out = null_mut();
        call(|e| unsafe { keepsock_reconnect_new(endpoint.as_ptr(), options.0, &raw mut out, e) })?;
        Ok(CReconnect { pointer: out, told: None })
    }

    fn take_inherited() -> Outcome<CInherited> {
        let mut out = null_mut();
        call(|e| unsafe { keepsock_inherited_take(&raw mut out, e) })?;
        Ok(CInherited(out))
    }

    fn hand_over(
        argv: Option<&[&str]>,
        handed: &[(&str, Handed<'_, Self>)],
        limit_ms: i64,
        token: Option<&CToken>,
    ) -> Outcome<i64> {
        let words = argv.map(|argv| argv.iter().map(|word| c(word)).collect::<Vec<_>>());
        let pointers = words.as_ref().map(|words| {
            let pointers = words.iter().map(|word| word.as_ptr());
            pointers.chain([null()]).collect::<Vec<_>>()
        });
        let names: Vec<_> = handed.iter().map(|(name, _)| c(name)).collect();
        let structures = handed.iter().zip(&names).map(|((_, what), name)| match what {
            Handed::Server(server) => {
                keepsock_handed { name: name.as_ptr(), server: server.0, datagram: null() }
            }
            Handed::Datagram(socket) => {
                keepsock_handed { name: name.as_ptr(), server: null(), datagram: socket.0 }
            }
        });
        let structures: Vec<_> = structures.collect();
        let (first, count) = (structures.as_ptr(), structures.len());
        let argv = pointers.as_ref().map_or(null(), |pointers| pointers.as_ptr());
        let token = token.map_or(null(), |t| t.0.cast_const());
        let mut pid = 0;
        call(|e| unsafe {
            keepsock_hand_over(argv, first, count, limit_ms, token, &raw mut pid, e)
        })?;
        Ok(pid)
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

    fn read_message(&self, prefix: LengthPrefix, max: usize) -> Outcome<Vec<u8>> {
        let (mut buf, mut n) = (vec![0u8; max], 0);
        call(|e| unsafe {
            let space = buf.as_mut_ptr().cast();
            keepsock_client_read_message(self.pointer, prefix as i32, space, max, &raw mut n, e)
        })?;
        buf.truncate(n);
        Ok(buf)
    }

    fn write_message(&self, prefix: LengthPrefix, message: &[u8]) -> Outcome<()> {
        call(|e| unsafe {
            let (data, len) = (message.as_ptr().cast(), message.len());
            keepsock_client_write_message(self.pointer, prefix as i32, data, len, e)
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

    fn read_slices(&self, bufs: &mut [&mut [u8]]) -> Outcome<usize> {
        let buffers: Vec<_> = bufs
            .iter_mut()
            .map(|b| keepsock_buffer {
                data: if b.is_empty() { null_mut() } else { b.as_mut_ptr().cast() },
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
                data: if b.is_empty() { null() } else { b.as_ptr().cast() },
                len: b.len(),
            })
            .collect();
        call(|e| unsafe {
            keepsock_client_write_slices(self.pointer, slices.as_ptr(), slices.len(), e)
        })
    }

    fn wait_hangup(&self, ms: i64) -> Outcome<End> {
        let mut how = 0;
        call(|e| unsafe { keepsock_client_wait_hangup(self.pointer, ms, &raw mut how, e) })?;
        Ok(end(how).expect("a value of keepsock_end"))
    }

    fn end(&self) -> Option<End> {
        end(unsafe { keepsock_client_end(self.pointer) })
    }

    fn check_alive(&self) -> Outcome<i64> {
        let mut next = 0;
        call(|e| unsafe { keepsock_client_check_alive(self.pointer, &raw mut next, e) })?;
        Ok(next)
    }

    fn snapshot(&self) -> Outcome<Snap> {
        let mut s: keepsock_snapshot = unsafe { std::mem::zeroed() };
        call(|e| unsafe {
            keepsock_client_snapshot(self.pointer, &raw mut s, size_of_val(&s), e)
        })?;
        Ok(snap(&s))
    }

    fn state(&self) -> Outcome<i32> {
        let mut state = 0;
        call(|e| unsafe { keepsock_client_state(self.pointer, &raw mut state, e) })?;
        Ok(state)
    }

    fn is_mptcp(&self) -> bool {
        unsafe { keepsock_client_is_mptcp(self.pointer) }
    }

    fn user_timeout(&self) -> Outcome<i64> {
        let mut ms = 0;
        call(|e| unsafe { keepsock_client_user_timeout(self.pointer, &raw mut ms, e) })?;
        Ok(ms)
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
        if !k.enabled {
            assert_eq!((k.idle_ms, k.interval_ms, k.count), (0, 0, 0));
        }
        Ok(k.enabled.then_some((k.idle_ms, k.interval_ms, k.count)))
    }

    fn set_keepalive(&self, idle: i64, interval: i64, count: u32) -> Outcome<()> {
        call(|e| unsafe { keepsock_client_set_keepalive(self.pointer, idle, interval, count, e) })
    }

    fn disable_keepalive(&self) -> Outcome<()> {
        call(|e| unsafe { keepsock_client_disable_keepalive(self.pointer, e) })
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

    fn five_tuple(&self) -> Tuple {
        let mut t: keepsock_five_tuple = unsafe { std::mem::zeroed() };
        call(|e| unsafe {
            keepsock_client_five_tuple(self.pointer, &raw mut t, size_of_val(&t), e)
        })
        .unwrap();
        tuple(&t)
    }

    fn name(&self) -> String {
        text(unsafe { keepsock_client_name(self.pointer) })
    }

    fn fd(&self) -> Outcome<RawFd> {
        let mut fd = -1;
        call(|e| unsafe { keepsock_client_fd(self.pointer, &raw mut fd, e) })?;
        Ok(fd)
    }

    fn another(&self) -> CClient {
        let mut out = null_mut();
        call(|e| unsafe { keepsock_client_ref(self.pointer, &raw mut out, e) }).unwrap();
        CClient::new(out)
    }

    fn release(&self) -> Outcome<OwnedFd> {
        let mut fd = -1;
        call(|e| unsafe { keepsock_client_release_fd(self.pointer, &raw mut fd, e) })?;
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    fn write_fds(&self, bytes: &[u8], fds: &[RawFd]) -> Outcome<usize> {
        let mut written = usize::MAX;
        let (data, fds, count) = (bytes.as_ptr().cast(), fds.as_ptr(), fds.len());
        call(|e| unsafe {
            let written = &raw mut written;
            keepsock_client_write_fds(self.pointer, data, bytes.len(), fds, count, written, e)
        })?;
        Ok(written)
    }

    fn read_fds(&self, cap: usize, max: usize) -> Outcome<Passed> {
        let (mut bytes, mut fds) = (vec![0u8; cap], vec![-1; max]);
        let (mut len, mut count, mut lost) = (usize::MAX, usize::MAX, false);
        let (data, first) = (bytes.as_mut_ptr().cast(), fds.as_mut_ptr());
        call(|e| unsafe {
            let (len, count, lost) = (&raw mut len, &raw mut count, &raw mut lost);
            keepsock_client_read_fds(self.pointer, data, cap, first, max, len, count, lost, e)
        })?;
        bytes.truncate(len);
        fds.truncate(count);
        let fds = fds.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }).collect();
        Ok(Passed { bytes, fds, lost })
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
        text(unsafe { keepsock_server_endpoint(self.0) })
    }

    fn endpoints(&self) -> Vec<String> {
        let count = unsafe { keepsock_server_endpoint_count(self.0) };
        (0..count).map(|i| text(unsafe { keepsock_server_endpoint_at(self.0, i) })).collect()
    }

    fn state(&self) -> i32 {
        unsafe { keepsock_server_state(self.0) }
    }

    fn port(&self) -> u16 {
        unsafe { keepsock_server_port(self.0) }
    }

    fn counters(&self) -> Counters {
        let mut n: keepsock_server_counters = unsafe { std::mem::zeroed() };
        call(|e| unsafe { keepsock_server_counters_get(self.0, &raw mut n, size_of_val(&n), e) })
            .unwrap();
        Counters {
            accepted: n.accepted,
            retried: n.retried,
            exhausted: n.exhausted,
            refused: n.refused,
            crowded: n.crowded,
            denied: n.denied,
        }
    }

    fn set_accept_timeout(&self, ms: i64) -> Outcome<()> {
        call(|e| unsafe { keepsock_server_set_accept_timeout(self.0, ms, e) })
    }

    fn set_nonblocking(&self, on: bool) -> Outcome<()> {
        call(|e| unsafe { keepsock_server_set_nonblocking(self.0, on, e) })
    }

    fn set_cancel(&self, token: Option<&CToken>) {
        let token = token.map_or(null_mut(), |t| t.0);
        call(|e| unsafe { keepsock_server_set_cancel(self.0, token, e) }).unwrap();
    }

    fn fd(&self) -> Outcome<RawFd> {
        let mut fd = -1;
        call(|e| unsafe { keepsock_server_fd(self.0, &raw mut fd, e) })?;
        Ok(fd)
    }

    fn fd_at(&self, index: usize) -> Outcome<RawFd> {
        let mut fd = -1;
        call(|e| unsafe { keepsock_server_fd_at(self.0, index, &raw mut fd, e) })?;
        Ok(fd)
    }

    fn release(&self) -> Outcome<OwnedFd> {
        let mut fd = -1;
        call(|e| unsafe { keepsock_server_release_fd(self.0, &raw mut fd, e) })?;
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    fn close(&self) {
        call(|e| unsafe { keepsock_server_close(self.0, e) }).unwrap();
    }

    fn serve(&self, list: &[Serve], handler: Handler<CApi>) -> Outcome<CService> {
        unsafe extern "C" fn run(client: *mut keepsock_client, user: *mut c_void) {
            let handler = unsafe { &*user.cast::<Handler<CApi>>() };
            handler(&CClient { pointer: client, lent: true });
        }
        let options = serve_options(list)?;
        let handler = Box::new(handler);
        let user: *const Handler<CApi> = &raw const *handler;
        let mut out = null_mut();
        call(|e| unsafe {
            let user = user.cast_mut().cast();
            keepsock_server_serve(self.0, options.0, Some(run), user, &raw mut out, e)
        })?;
        Ok(CService { pointer: out, _user: User::Handler(handler) })
    }

    fn serve_events(&self, list: &[Serve], on: On<CApi>) -> Outcome<CService> {
        let options = serve_options(list)?;
        let on = Box::new(on);
        let callbacks = callbacks(&on);
        let user: *const On<CApi> = &raw const *on;
        let mut out = null_mut();
        call(|e| unsafe {
            let (callbacks, user) = (&raw const callbacks, user.cast_mut().cast());
            keepsock_server_serve_events(self.0, options.0, callbacks, user, &raw mut out, e)
        })?;
        Ok(CService { pointer: out, _user: User::On(on) })
    }
}

impl Token for CToken {
    fn fire(&self) {
        unsafe { keepsock_cancel_fire(self.0) };
    }

    fn reset(&self) {
        unsafe { keepsock_cancel_reset(self.0) };
    }

    fn is_fired(&self) -> bool {
        unsafe { keepsock_cancel_is_fired(self.0) }
    }
}

struct Served(*mut keepsock_serve_options);

impl Drop for Served {
    fn drop(&mut self) {
        unsafe { keepsock_serve_options_free(self.0) };
    }
}

fn serve_options(list: &[Serve]) -> Outcome<Served> {
    let mut o = null_mut();
    call(|e| unsafe { keepsock_serve_options_new(&raw mut o, e) })?;
    let served = Served(o);
    for option in list {
        call(|e| unsafe {
            match option {
                Serve::Max(n) => keepsock_serve_options_set_max_connections(o, *n, e),
                Serve::Refuse => keepsock_serve_options_set_when_full(o, 1, e),
                Serve::PerAddress(n) => keepsock_serve_options_set_max_per_address(o, *n, e),
                Serve::Allow(network) => keepsock_serve_options_allow(o, c(network).as_ptr(), e),
                Serve::Deny(network) => keepsock_serve_options_deny(o, c(network).as_ptr(), e),
                Serve::Threads(n) => keepsock_serve_options_set_threads(o, *n, e),
                Serve::MaxQueued(bytes) => keepsock_serve_options_set_max_queued(o, *bytes, e),
                Serve::DropOldest => keepsock_serve_options_set_when_slow(o, 1, e),
                Serve::Framing(Framing::Lines { max }) => {
                    keepsock_serve_options_set_lines(o, *max, e)
                }
                Serve::Framing(Framing::Delimited { delimiter, max }) => {
                    keepsock_serve_options_set_delimiter(o, *delimiter, *max, e)
                }
                Serve::Framing(Framing::Prefixed { prefix, max }) => {
                    keepsock_serve_options_set_length_prefix(o, *prefix as i32, *max, e)
                }
                Serve::Framing(_) => KEEPSOCK_OK,
            }
        })?;
    }
    Ok(served)
}

unsafe fn on<'a>(user: *mut c_void) -> &'a On<CApi> {
    unsafe { &*user.cast() }
}

/// Those that the test has; the others are NULL.
fn callbacks(wanted: &On<CApi>) -> keepsock_callbacks {
    macro_rules! event {
        ($name:ident) => {{
            unsafe extern "C" fn $name(connection: *mut keepsock_connection, user: *mut c_void) {
                if let Some(call) = unsafe { &on(user).$name } {
                    call(&CConnection(connection));
                }
            }
            wanted.$name.as_ref().map(|_| $name as _)
        }};
    }
    unsafe extern "C" fn data(
        connection: *mut keepsock_connection,
        data: *const c_void,
        len: usize,
        user: *mut c_void,
    ) {
        let bytes = unsafe { std::slice::from_raw_parts(data.cast(), len) };
        if let Some(call) = unsafe { &on(user).data } {
            call(&CConnection(connection), bytes);
        }
    }
    unsafe extern "C" fn close(connection: *mut keepsock_connection, n: i32, user: *mut c_void) {
        if let Some(call) = unsafe { &on(user).close } {
            call(&CConnection(connection), end(n).expect("an end"));
        }
    }
    unsafe extern "C" fn failed(
        error: *const keepsock_error,
        data: *mut c_void,
        user: *mut c_void,
    ) {
        if let Some(call) = unsafe { &on(user).connect_failed } {
            call(unsafe { failure(error) }, data as usize);
        }
    }
    keepsock_callbacks {
        size: size_of::<keepsock_callbacks>(),
        open: event!(open),
        data: wanted.data.as_ref().map(|_| data as _),
        writable: event!(writable),
        finished: event!(finished),
        timer: event!(timer),
        drain: event!(drain),
        close: wanted.close.as_ref().map(|_| close as _),
        connect_failed: wanted.connect_failed.as_ref().map(|_| failed as _),
    }
}

impl Connection for CConnection {
    fn send(&self, message: &[u8]) -> Outcome<()> {
        let (data, len) = (message.as_ptr().cast(), message.len());
        call(|e| unsafe { keepsock_connection_send(self.0, data, len, e) })
    }

    fn close(&self) {
        unsafe { keepsock_connection_close(self.0) };
    }

    fn abort(&self) {
        unsafe { keepsock_connection_abort(self.0) };
    }

    fn shutdown_write(&self) {
        unsafe { keepsock_connection_shutdown_write(self.0) };
    }

    fn pause(&self) {
        unsafe { keepsock_connection_pause(self.0) };
    }

    fn resume(&self) {
        unsafe { keepsock_connection_resume(self.0) };
    }

    fn queued(&self) -> usize {
        unsafe { keepsock_connection_queued(self.0) }
    }

    fn is_open(&self) -> bool {
        unsafe { keepsock_connection_is_open(self.0) }
    }

    fn set_timer(&self, ms: i64) -> Outcome<()> {
        call(|e| unsafe { keepsock_connection_set_timer(self.0, ms, e) })
    }

    fn join(&self, group: &str) -> Outcome<()> {
        call(|e| unsafe { keepsock_connection_join(self.0, c(group).as_ptr(), e) })
    }

    fn leave(&self, group: &str) {
        call(|e| unsafe { keepsock_connection_leave(self.0, c(group).as_ptr(), e) }).unwrap();
    }

    fn set_data(&self, data: usize) {
        unsafe { keepsock_connection_set_data(self.0, data as *mut c_void) };
    }

    fn data(&self) -> usize {
        unsafe { keepsock_connection_data(self.0) as usize }
    }

    fn id(&self) -> u64 {
        unsafe { keepsock_connection_id(self.0) }
    }

    fn end(&self) -> Option<End> {
        end(unsafe { keepsock_connection_end(self.0) })
    }

    fn five_tuple(&self) -> Outcome<Tuple> {
        let mut t: keepsock_five_tuple = unsafe { std::mem::zeroed() };
        let size = size_of_val(&t);
        call(|e| unsafe { keepsock_connection_five_tuple(self.0, &raw mut t, size, e) })?;
        Ok(tuple(&t))
    }

    fn name(&self) -> String {
        sized_text(|buf, cap, needed, e| unsafe {
            keepsock_connection_name(self.0, buf, cap, needed, e)
        })
    }

    fn snapshot(&self) -> Outcome<Snap> {
        let mut s: keepsock_snapshot = unsafe { std::mem::zeroed() };
        let size = size_of_val(&s);
        call(|e| unsafe { keepsock_connection_snapshot(self.0, &raw mut s, size, e) })?;
        Ok(snap(&s))
    }

    fn keepalive(&self) -> Outcome<Option<(i64, i64, u32)>> {
        let mut k: keepsock_keepalive = unsafe { std::mem::zeroed() };
        let size = size_of_val(&k);
        call(|e| unsafe { keepsock_connection_keepalive(self.0, &raw mut k, size, e) })?;
        Ok(k.enabled.then_some((k.idle_ms, k.interval_ms, k.count)))
    }

    fn peer_credentials(&self) -> Outcome<Peer> {
        let mut peer: keepsock_credentials = unsafe { std::mem::zeroed() };
        let size = size_of_val(&peer);
        call(|e| unsafe { keepsock_connection_peer_credentials(self.0, &raw mut peer, size, e) })?;
        Ok(Peer { pid: peer.pid, uid: peer.uid, gid: peer.gid })
    }
}

/// Text that goes into the caller's buffer: asks how much it is, then for it.
fn sized_text(
    get: impl Fn(*mut c_char, usize, *mut usize, *mut *mut keepsock_error) -> i32,
) -> String {
    let mut needed = 0;
    let refused = call(|e| get(null_mut(), 0, &raw mut needed, e)).unwrap_err();
    assert!(refused.is(keepsock::ErrorKind::TooLong) && needed > 0, "{refused:?}");
    // It may have grown meanwhile.
    let mut buf = vec![-1 as c_char; needed + 4096];
    call(|e| get(buf.as_mut_ptr(), buf.len(), &raw mut needed, e)).unwrap();
    let text = field(&buf);
    assert_eq!(text.len() + 1, needed);
    text
}

impl Service<CApi> for CService {
    fn connections(&self) -> u32 {
        unsafe { keepsock_service_connections(self.pointer) }
    }

    fn broadcast(&self, message: &[u8]) -> (u32, u32) {
        let result = self.push(None, message).unwrap();
        (result.sent, result.cut)
    }

    fn push(&self, group: Option<&str>, message: &[u8]) -> Outcome<Sent> {
        let mut b: keepsock_broadcast = unsafe { std::mem::zeroed() };
        let (out, size) = (&raw mut b, size_of_val(&b));
        let (data, len) = (message.as_ptr().cast(), message.len());
        call(|e| unsafe {
            match group {
                None => keepsock_service_broadcast(self.pointer, data, len, out, size, e),
                Some(group) => {
                    let group = c(group);
                    let (service, group) = (self.pointer, group.as_ptr());
                    keepsock_service_broadcast_to(service, group, data, len, out, size, e)
                }
            }
        })?;
        Ok(Sent { sent: b.sent, cut: b.cut, dropped: b.dropped })
    }

    fn add(&self, client: CClient, data: usize) -> Result<(), (CClient, Failure)> {
        let data = data as *mut c_void;
        let added =
            call(|e| unsafe { keepsock_service_add(self.pointer, client.pointer, data, e) });
        added.map_err(|failure| (client, failure))
    }

    fn connect(&self, endpoint: &str, list: &[Opt<'_, CApi>], data: usize) -> Outcome<()> {
        let (endpoint, options) = (c(endpoint), options(list)?);
        let data = data as *mut c_void;
        call(|e| unsafe {
            keepsock_service_connect(self.pointer, endpoint.as_ptr(), options.0, data, e)
        })
    }

    fn stats(&self) -> Stats {
        let mut s: keepsock_service_stats = unsafe { std::mem::zeroed() };
        let size = size_of_val(&s);
        call(|e| unsafe { keepsock_service_snapshot(self.pointer, &raw mut s, size, e) }).unwrap();
        let ends = s.ends.iter().zip(0..).filter(|(count, _)| **count > 0);
        Stats {
            accepting: s.accepting,
            connections: s.connections,
            opened: s.opened,
            closed: s.closed,
            received: s.received,
            written: s.written,
            sent: s.sent,
            queued: s.queued,
            dropped: s.dropped,
            dropped_messages: s.dropped_messages,
            ends: ends.map(|(count, number)| (end(number).expect("an end"), *count)).collect(),
        }
    }

    fn dump(&self) -> String {
        sized_text(|buf, cap, needed, e| unsafe {
            keepsock_service_dump(self.pointer, buf, cap, needed, e)
        })
    }

    fn stop(&self) {
        call(|e| unsafe { keepsock_service_stop(self.pointer, e) }).unwrap();
    }

    fn wait(&self, ms: i64) -> Outcome<()> {
        call(|e| unsafe { keepsock_service_wait(self.pointer, ms, e) })
    }

    fn drain(&self, limit_ms: i64) -> Outcome<(u32, u32)> {
        let (mut finished, mut cut) = (0, 0);
        call(|e| unsafe {
            let (finished, cut) = (&raw mut finished, &raw mut cut);
            keepsock_service_drain(self.pointer, limit_ms, finished, cut, e)
        })?;
        Ok((finished, cut))
    }

    fn finish(&self, limit_ms: i64) -> Outcome<u32> {
        let mut left = u32::MAX;
        call(|e| unsafe { keepsock_service_finish(self.pointer, limit_ms, &raw mut left, e) })?;
        Ok(left)
    }
}

impl Reconnect<CApi> for CReconnect {
    fn set_back_off(&mut self, first: i64, longest: i64) -> Outcome<()> {
        call(|e| unsafe { keepsock_reconnect_set_back_off(self.pointer, first, longest, e) })
    }

    fn set_limit(&mut self, ms: i64) -> Outcome<()> {
        call(|e| unsafe { keepsock_reconnect_set_limit(self.pointer, ms, e) })
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
}

pub struct CDatagram(pub *mut keepsock_datagram);

// The header: any number of threads may be in calls on one socket.
unsafe impl Send for CDatagram {}
unsafe impl Sync for CDatagram {}

impl Drop for CDatagram {
    fn drop(&mut self) {
        unsafe { keepsock_datagram_free(self.0) };
    }
}

/// An address of C's, by way of its text.
fn socket_address(address: &keepsock_address) -> Option<SocketAddr> {
    // None, or a Unix socket.
    if address.family < 4 {
        return None;
    }
    let (mut buf, mut needed) = ([0 as c_char; 64], 0);
    call(|e| unsafe {
        keepsock_address_text(address, buf.as_mut_ptr(), buf.len(), &raw mut needed, e)
    })
    .unwrap();
    let text = field(&buf);
    assert_eq!(needed, text.len() + 1);
    Some(text.parse().unwrap())
}

pub fn c_address(address: SocketAddr) -> keepsock_address {
    let mut out: keepsock_address = unsafe { std::mem::zeroed() };
    let text = c(&address.to_string());
    call(|e| unsafe { keepsock_address_parse(text.as_ptr(), &raw mut out, e) }).unwrap();
    out
}

fn sender(info: &keepsock_datagram_info) -> String {
    let name = &info.unix_name[..usize::from(info.unix_name_len)];
    match (socket_address(&info.from), name) {
        (Some(inet), []) => inet.to_string(),
        (None, []) => "unix:(unnamed)".to_owned(),
        (None, [0, name @ ..]) => format!("unix:@{}", String::from_utf8_lossy(name)),
        (None, path) => format!("unix:{}", String::from_utf8_lossy(path)),
        other => panic!("{other:?}"),
    }
}

fn got(info: &keepsock_datagram_info, bytes: &[u8]) -> Got {
    Got {
        bytes: bytes.to_vec(),
        original_len: info.original_len,
        truncated: info.truncated,
        from: socket_address(&info.from).unwrap_or(SocketAddr::from(([0; 4], 0))),
        sender: sender(info),
        to: socket_address(&info.to),
        local: socket_address(&info.local),
        interface: info.interface_index,
        ttl: u8::try_from(info.ttl).ok(),
        tos: u8::try_from(info.tos).ok(),
        received_at: u64::try_from(info.received_at_ns)
            .ok()
            .map(|ns| SystemTime::UNIX_EPOCH + Duration::from_nanos(ns)),
        credentials: info.has_credentials.then(|| {
            let peer = &info.credentials;
            Peer { pid: peer.pid, uid: peer.uid, gid: peer.gid }
        }),
    }
}

type Member = unsafe extern "C" fn(
    *mut keepsock_datagram,
    *const keepsock_address,
    *const c_char,
    *const keepsock_address,
    *mut *mut keepsock_error,
) -> i32;

impl CDatagram {
    fn member(
        &self,
        function: Member,
        group: IpAddr,
        interface: Option<&str>,
        from: Option<IpAddr>,
    ) -> Outcome<()> {
        let group = c_address(SocketAddr::new(group, 0));
        let interface = interface.map(c);
        let interface = interface.as_ref().map_or(null(), |name| name.as_ptr());
        let from = from.map(|ip| c_address(SocketAddr::new(ip, 0)));
        let from = from.as_ref().map_or(null(), std::ptr::from_ref);
        call(|e| unsafe { function(self.0, &raw const group, interface, from, e) })
    }

    fn send_all(&self, batch: &[keepsock_outgoing]) -> Outcome<usize> {
        let mut sent = 0;
        call(|e| unsafe {
            keepsock_datagram_send_batch(self.0, batch.as_ptr(), batch.len(), &raw mut sent, e)
        })?;
        Ok(sent)
    }
}

impl Datagrams<CApi> for CDatagram {
    type Info = keepsock_datagram_info;

    fn send(&self, bytes: &[u8]) -> Outcome<()> {
        call(|e| unsafe { keepsock_datagram_send(self.0, bytes.as_ptr().cast(), bytes.len(), e) })
    }

    fn send_to(&self, bytes: &[u8], to: SocketAddr) -> Outcome<()> {
        let to = c_address(to);
        call(|e| unsafe {
            let (data, len) = (bytes.as_ptr().cast(), bytes.len());
            keepsock_datagram_send_to(self.0, data, len, &raw const to, e)
        })
    }

    fn reply(&self, question: &keepsock_datagram_info, bytes: &[u8]) -> Outcome<()> {
        call(|e| unsafe {
            let (data, len) = (bytes.as_ptr().cast(), bytes.len());
            keepsock_datagram_reply(self.0, question, data, len, e)
        })
    }

    fn recv_info(&self, cap: usize) -> Outcome<(Got, keepsock_datagram_info)> {
        let mut bytes = vec![0u8; cap];
        let mut info: keepsock_datagram_info = unsafe { std::mem::zeroed() };
        call(|e| unsafe {
            let (buf, size) = (bytes.as_mut_ptr().cast(), size_of_val(&info));
            keepsock_datagram_recv(self.0, buf, cap, &raw mut info, size, e)
        })?;
        Ok((got(&info, &bytes[..info.len]), info))
    }

    fn send_batch(&self, batch: &[(&[u8], Option<SocketAddr>)]) -> Outcome<usize> {
        let batch: Vec<_> = batch
            .iter()
            .map(|(bytes, to)| keepsock_outgoing {
                data: bytes.as_ptr().cast(),
                len: bytes.len(),
                to: to.map_or_else(|| unsafe { std::mem::zeroed() }, c_address),
                local: unsafe { std::mem::zeroed() },
                interface_index: 0,
                question: null(),
            })
            .collect();
        self.send_all(&batch)
    }

    fn reply_batch(&self, answers: &[(&keepsock_datagram_info, &[u8])]) -> Outcome<usize> {
        let batch: Vec<_> = answers
            .iter()
            .map(|(question, bytes)| keepsock_outgoing {
                data: bytes.as_ptr().cast(),
                len: bytes.len(),
                question: *question,
                ..unsafe { std::mem::zeroed() }
            })
            .collect();
        self.send_all(&batch)
    }

    fn recv_batch(&self, caps: &[usize]) -> Outcome<Vec<Got>> {
        // As a later header might have it: larger entries.
        #[repr(C)]
        struct Later(keepsock_incoming, u64);
        let mut buffers: Vec<_> = caps.iter().map(|cap| vec![0u8; *cap]).collect();
        let info = || unsafe { std::mem::zeroed() };
        let mut batch: Vec<_> = buffers
            .iter_mut()
            .map(|b| keepsock_incoming { data: b.as_mut_ptr().cast(), cap: b.len(), info: info() })
            .map(|incoming| Later(incoming, 7))
            .collect();
        let mut count = 0;
        call(|e| unsafe {
            let (first, n, size) = (batch.as_mut_ptr().cast(), batch.len(), size_of::<Later>());
            keepsock_datagram_recv_batch(self.0, first, n, size, &raw mut count, e)
        })?;
        assert!(batch[..count].iter().all(|later| later.1 == 0));
        assert!(batch[count..].iter().all(|later| later.1 == 7 && later.0.info.from.family == 0));
        let bytes = |i: &keepsock_incoming| match i.info.len {
            0 => &[][..],
            len => unsafe { std::slice::from_raw_parts(i.data.cast::<u8>(), len) },
        };
        Ok(batch[..count].iter().map(|later| got(&later.0.info, bytes(&later.0))).collect())
    }

    fn set_broadcast(&self, on: bool) -> Outcome<()> {
        call(|e| unsafe { keepsock_datagram_set_broadcast(self.0, on, e) })
    }

    fn join(&self, group: IpAddr, interface: Option<&str>, from: Option<IpAddr>) -> Outcome<()> {
        self.member(keepsock_datagram_join, group, interface, from)
    }

    fn leave(&self, group: IpAddr, interface: Option<&str>, from: Option<IpAddr>) -> Outcome<()> {
        self.member(keepsock_datagram_leave, group, interface, from)
    }

    fn set_multicast_loop(&self, on: bool) -> Outcome<()> {
        call(|e| unsafe { keepsock_datagram_set_multicast_loop(self.0, on, e) })
    }

    fn set_multicast_ttl(&self, ttl: u8) -> Outcome<()> {
        call(|e| unsafe { keepsock_datagram_set_multicast_ttl(self.0, ttl, e) })
    }

    fn set_multicast_interface(&self, name: &str) -> Outcome<()> {
        let name = c(name);
        call(|e| unsafe { keepsock_datagram_set_multicast_interface(self.0, name.as_ptr(), e) })
    }

    fn set_report_errors(&self, on: bool) -> Outcome<()> {
        call(|e| unsafe { keepsock_datagram_set_report_errors(self.0, on, e) })
    }

    fn recv_error(&self) -> Outcome<Option<Reported>> {
        let mut out: keepsock_datagram_error = unsafe { std::mem::zeroed() };
        let size = size_of_val(&out);
        call(|e| unsafe { keepsock_datagram_recv_error(self.0, &raw mut out, size, e) })?;
        Ok((out.status != KEEPSOCK_OK).then(|| Reported {
            status: out.status,
            os_error: out.os_error,
            to: socket_address(&out.to),
            from: socket_address(&out.from).map(|a| a.ip()),
            path_mtu: (out.path_mtu != 0).then_some(out.path_mtu),
        }))
    }

    fn error_count(&self) -> u64 {
        unsafe { keepsock_datagram_error_count(self.0) }
    }

    fn endpoint(&self) -> String {
        text(unsafe { keepsock_datagram_endpoint(self.0) })
    }

    fn name(&self) -> String {
        text(unsafe { keepsock_datagram_name(self.0) })
    }

    fn port(&self) -> u16 {
        unsafe { keepsock_datagram_port(self.0) }
    }

    fn five_tuple(&self) -> Tuple {
        let mut out: keepsock_five_tuple = unsafe { std::mem::zeroed() };
        let size = size_of_val(&out);
        call(|e| unsafe { keepsock_datagram_five_tuple(self.0, &raw mut out, size, e) }).unwrap();
        tuple(&out)
    }

    fn set_read_timeout(&self, ms: i64) -> Outcome<()> {
        call(|e| unsafe { keepsock_datagram_set_read_timeout(self.0, ms, e) })
    }

    fn set_write_timeout(&self, ms: i64) -> Outcome<()> {
        call(|e| unsafe { keepsock_datagram_set_write_timeout(self.0, ms, e) })
    }

    fn set_nonblocking(&self, on: bool) -> Outcome<()> {
        call(|e| unsafe { keepsock_datagram_set_nonblocking(self.0, on, e) })
    }

    fn set_cancel(&self, token: Option<&CToken>) {
        let token = token.map_or(null(), |t| t.0.cast_const());
        call(|e| unsafe { keepsock_datagram_set_cancel(self.0, token, e) }).unwrap();
    }

    fn fd(&self) -> Outcome<RawFd> {
        let mut fd = -1;
        call(|e| unsafe { keepsock_datagram_fd(self.0, &raw mut fd, e) })?;
        Ok(fd)
    }

    fn release(&self) -> Outcome<OwnedFd> {
        let mut fd = -1;
        call(|e| unsafe { keepsock_datagram_release_fd(self.0, &raw mut fd, e) })?;
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    fn close(&self) {
        call(|e| unsafe { keepsock_datagram_close(self.0, e) }).unwrap();
    }

    fn send_to_endpoint(&self, bytes: &[u8], endpoint: &str) -> Outcome<()> {
        let endpoint = c(endpoint);
        call(|e| unsafe {
            let (data, len) = (bytes.as_ptr().cast(), bytes.len());
            keepsock_datagram_send_to_endpoint(self.0, data, len, endpoint.as_ptr(), e)
        })
    }

    fn set_ttl(&self, ttl: u8) -> Outcome<()> {
        call(|e| unsafe { keepsock_datagram_set_ttl(self.0, ttl, e) })
    }

    fn set_tos(&self, tos: u8) -> Outcome<()> {
        call(|e| unsafe { keepsock_datagram_set_tos(self.0, tos, e) })
    }

    fn set_dont_fragment(&self, on: bool) -> Outcome<()> {
        call(|e| unsafe { keepsock_datagram_set_dont_fragment(self.0, on, e) })
    }

    fn path_mtu(&self) -> Outcome<u32> {
        let mut mtu = 0;
        call(|e| unsafe { keepsock_datagram_path_mtu(self.0, &raw mut mtu, e) })?;
        Ok(mtu)
    }

    fn set_details(&self, on: bool) -> Outcome<()> {
        call(|e| unsafe { keepsock_datagram_set_details(self.0, on, e) })
    }

    fn snapshot(&self) -> Outcome<DatagramStats> {
        let mut out: keepsock_datagram_stats = unsafe { std::mem::zeroed() };
        let size = size_of_val(&out);
        call(|e| unsafe { keepsock_datagram_snapshot(self.0, &raw mut out, size, e) })?;
        Ok(DatagramStats {
            dropped: out.dropped,
            unread: out.unread,
            receive_buffer: out.receive_buffer,
            unsent: out.unsent,
            send_buffer: out.send_buffer,
            denied: out.denied,
            errors: out.errors,
            path_mtu: out.path_mtu,
        })
    }

    fn serve(&self, threads: u32, handler: OnDatagram) -> Outcome<CDatagramService> {
        unsafe extern "C" fn each(
            datagram: *mut keepsock_datagram,
            info: *const keepsock_datagram_info,
            data: *const c_void,
            len: usize,
            user: *mut c_void,
        ) {
            let (info, handler, bytes) = unsafe {
                let bytes = std::slice::from_raw_parts(data.cast::<u8>(), len);
                (&*info, &*user.cast::<OnDatagram>(), bytes)
            };
            let reply = |answer: &[u8]| {
                call(|e| unsafe {
                    let (data, len) = (answer.as_ptr().cast(), answer.len());
                    keepsock_datagram_reply(datagram, info, data, len, e)
                })
            };
            handler(&reply, &got(info, bytes));
        }
        let handler = Box::new(handler);
        let user = std::ptr::from_ref(&*handler).cast_mut().cast();
        let mut service = null_mut();
        call(|e| unsafe {
            keepsock_datagram_serve(self.0, threads, Some(each), user, &raw mut service, e)
        })?;
        Ok(CDatagramService { service, _handler: handler })
    }

    fn send_fds(&self, bytes: &[u8], to: Option<&str>, fds: &[RawFd]) -> Outcome<()> {
        let to = to.map(c);
        let to = to.as_ref().map_or(null(), |to| to.as_ptr());
        let (data, len) = (bytes.as_ptr().cast(), bytes.len());
        call(|e| unsafe {
            keepsock_datagram_send_fds(self.0, data, len, to, fds.as_ptr(), fds.len(), e)
        })
    }

    fn recv_fds(&self, cap: usize, max: usize) -> Outcome<(Got, Passed)> {
        let (mut bytes, mut fds) = (vec![0u8; cap], vec![-1; max]);
        let (mut count, mut lost) = (usize::MAX, false);
        let mut info: keepsock_datagram_info = unsafe { std::mem::zeroed() };
        let (data, first) = (bytes.as_mut_ptr().cast(), fds.as_mut_ptr());
        call(|e| unsafe {
            let (size, at) = (size_of_val(&info), &raw mut info);
            let (count, lost) = (&raw mut count, &raw mut lost);
            keepsock_datagram_recv_fds(self.0, data, cap, at, size, first, max, count, lost, e)
        })?;
        bytes.truncate(info.len);
        fds.truncate(count);
        let fds = fds.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }).collect();
        Ok((got(&info, &bytes), Passed { bytes, fds, lost }))
    }

    fn send_by(&self, bytes: &[u8], to: SocketAddr, interface: u32) -> Outcome<usize> {
        let (data, len) = (bytes.as_ptr().cast(), bytes.len());
        let local = unsafe { std::mem::zeroed() };
        let to = c_address(to);
        let one = keepsock_outgoing {
            data,
            len,
            to,
            local,
            interface_index: interface,
            question: null(),
        };
        self.send_all(&[one])
    }

    fn send_batch_from(
        &self,
        batch: &[&[u8]],
        to: SocketAddr,
        local: SocketAddr,
    ) -> Outcome<usize> {
        let (to, local) = (c_address(to), c_address(local));
        let each = |bytes: &&[u8]| {
            let (data, len) = (bytes.as_ptr().cast(), bytes.len());
            keepsock_outgoing { data, len, to, local, interface_index: 0, question: null() }
        };
        self.send_all(&batch.iter().map(each).collect::<Vec<_>>())
    }
}

pub struct CDatagramService {
    service: *mut keepsock_datagram_service,
    _handler: Box<OnDatagram>,
}

// The header: any thread may call any function.
unsafe impl Send for CDatagramService {}
unsafe impl Sync for CDatagramService {}

impl Drop for CDatagramService {
    fn drop(&mut self) {
        unsafe { keepsock_datagram_service_free(self.service) };
    }
}

impl DatagramService for CDatagramService {
    fn received(&self) -> u64 {
        unsafe { keepsock_datagram_service_received(self.service) }
    }

    fn stop(&self) {
        call(|e| unsafe { keepsock_datagram_service_stop(self.service, e) }).unwrap();
    }

    fn wait(&self, ms: i64) -> Outcome<()> {
        call(|e| unsafe { keepsock_datagram_service_wait(self.service, ms, e) })
    }
}

pub struct CInherited(*mut keepsock_inherited);

impl Drop for CInherited {
    fn drop(&mut self) {
        unsafe { keepsock_inherited_free(self.0) };
    }
}

impl Inherited<CApi> for CInherited {
    fn listen(&mut self, endpoint: &str, list: &[Opt<'_, CApi>]) -> Outcome<CServer> {
        let (endpoint, options) = (c(endpoint), options(list)?);
        let mut out = null_mut();
        call(|e| unsafe {
            keepsock_inherited_listen(self.0, endpoint.as_ptr(), options.0, &raw mut out, e)
        })?;
        Ok(CServer(out))
    }

    fn server(&mut self, name: &str, list: &[Opt<'_, CApi>]) -> Outcome<CServer> {
        let (name, options) = (c(name), options(list)?);
        let mut out = null_mut();
        call(|e| unsafe {
            keepsock_inherited_server(self.0, name.as_ptr(), options.0, &raw mut out, e)
        })?;
        Ok(CServer(out))
    }

    fn datagram(&mut self, name: &str, list: &[Opt<'_, CApi>]) -> Outcome<CDatagram> {
        let (name, options) = (c(name), options(list)?);
        let mut out = null_mut();
        call(|e| unsafe {
            keepsock_inherited_datagram(self.0, name.as_ptr(), options.0, &raw mut out, e)
        })?;
        Ok(CDatagram(out))
    }

    fn bind(&mut self, endpoint: &str, list: &[Opt<'_, CApi>]) -> Outcome<CDatagram> {
        let (endpoint, options) = (c(endpoint), options(list)?);
        let mut out = null_mut();
        call(|e| unsafe {
            keepsock_inherited_bind(self.0, endpoint.as_ptr(), options.0, &raw mut out, e)
        })?;
        Ok(CDatagram(out))
    }

    fn names(&self) -> Vec<String> {
        let count = unsafe { keepsock_inherited_count(self.0) };
        let name = |i| text(unsafe { keepsock_inherited_name(self.0, i) });
        assert_eq!(name(count), "");
        (0..count).map(name).collect()
    }

    fn ready(&mut self) -> Outcome<()> {
        call(|e| unsafe { keepsock_inherited_ready(self.0, e) })
    }
}
