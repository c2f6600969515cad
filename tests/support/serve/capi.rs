//! Services of the C API.

// The purpose of this file is calls of C functions.
#![allow(unsafe_code, clippy::undocumented_unsafe_blocks)]

use std::any::Any;
use std::ffi::c_void;
use std::ptr::{null, null_mut};
use std::sync::Mutex;

use keepsock::ffi::*;
use keepsock::{CloseReason, Framing, OverflowPolicy, Sockopt};

use super::super::capi::{
    CApi, CClient, CReconnect, CServer, c, call, close_reason, failure, framing_to_c, options,
    sized_text, snap, text_of, tuple,
};
use super::super::help::Callbacks;
use super::super::os::{NO_FD, RawFd};
use super::super::{ConnStats, Failure, Opt, Outcome, Peer, Tuple};
use super::{
    Connection, Handler, On, OnConnection, OnTimer, Sent, Serve, Service, Stats,
    handler_that_may_skip, posted_that_may_skip, timer_that_may_skip,
};

pub struct CService {
    pub pointer: *mut keepsock_service,
    /// The target of `user`. It lives until the service is freed.
    _user: Box<dyn Any>,
    /// The targets of `user` of timers and reconnects. They live until the service is freed.
    kept: Mutex<Vec<Box<dyn Any + Send>>>,
}

#[derive(Clone, Copy)]
pub struct CConnection(pub keepsock_conn);

unsafe impl Send for CService {}

unsafe impl Sync for CService {}

impl CService {
    pub fn serve(server: &CServer, list: &[Serve], handler: Handler<CApi>) -> Outcome<CService> {
        unsafe extern "C" fn run(client: *mut keepsock_client, user: *mut c_void) {
            let handler = unsafe { &*user.cast::<Handler<CApi>>() };
            handler(&CClient { pointer: client, lent: true });
        }
        let options = serve_options(list)?;
        let handler = Box::new(handler_that_may_skip::<CApi>(handler));
        let user: *const Handler<CApi> = &raw const *handler;
        let mut out = null_mut();
        call(|e| unsafe {
            let user = user.cast_mut().cast();
            keepsock_server_serve(server.0, options.0, Some(run), user, &raw mut out, e)
        })?;
        Ok(CService { pointer: out, _user: handler, kept: Mutex::default() })
    }

    pub fn serve_events(server: &CServer, list: &[Serve], on: On<CApi>) -> Outcome<CService> {
        let options = serve_options(list)?;
        let on = Box::new(on.that_may_skip());
        let callbacks = callbacks(&on);
        let user: *const On<CApi> = &raw const *on;
        let mut out = null_mut();
        call(|e| unsafe {
            let (callbacks, user) = (&raw const callbacks, user.cast_mut().cast());
            keepsock_server_serve_events(server.0, options.0, callbacks, user, &raw mut out, e)
        })?;
        Ok(CService { pointer: out, _user: on, kept: Mutex::default() })
    }
}

impl Drop for CService {
    fn drop(&mut self) {
        unsafe { keepsock_service_free(self.pointer) };
    }
}

pub struct Served(pub *mut keepsock_serve_options);

impl Drop for Served {
    fn drop(&mut self) {
        unsafe { keepsock_serve_options_free(self.0) };
    }
}

pub fn serve_options(list: &[Serve]) -> Outcome<Served> {
    let mut o = null_mut();
    call(|e| unsafe { keepsock_serve_options_new(&raw mut o, e) })?;
    let served = Served(o);
    for option in list {
        call(|e| unsafe {
            match option {
                Serve::Max(n) => keepsock_serve_options_set_max_connections(o, *n, e),
                Serve::Reject => keepsock_serve_options_set_accept_policy(o, 1, e),
                Serve::PerAddress(n) => keepsock_serve_options_set_max_per_address(o, *n, e),
                Serve::Allow(network) => {
                    keepsock_serve_options_add_allowed_network(o, c(network).as_ptr(), e)
                }
                Serve::Deny(network) => {
                    keepsock_serve_options_add_denied_network(o, c(network).as_ptr(), e)
                }
                Serve::Threads(n) => keepsock_serve_options_set_threads(o, *n, e),
                Serve::QueueLimit(bytes) => keepsock_serve_options_set_queue_limit(o, *bytes, e),
                Serve::DropOldest => keepsock_serve_options_set_overflow_policy(o, 1, e),
                Serve::Cpus(cpus) => {
                    keepsock_serve_options_set_cpus(o, cpus.as_ptr(), cpus.len(), e)
                }
                Serve::Stack(bytes) => keepsock_serve_options_set_stack_size(o, *bytes, e),
                Serve::Framing(framing) => {
                    let framing = framing_to_c(framing);
                    keepsock_serve_options_set_framing(o, &raw const framing, e)
                }
            }
        })?;
    }
    Ok(served)
}

unsafe fn on<'a>(user: *mut c_void) -> &'a On<CApi> {
    unsafe { &*user.cast() }
}

/// Sets the callbacks of the test. The others are NULL.
fn callbacks(wanted: &On<CApi>) -> keepsock_callbacks {
    macro_rules! event {
        ($name:ident) => {{
            unsafe extern "C" fn $name(conn: keepsock_conn, user: *mut c_void) {
                if let Some(call) = unsafe { &on(user).$name } {
                    call(&CConnection(conn));
                }
            }
            wanted.$name.as_ref().map(|_| $name as _)
        }};
    }
    unsafe extern "C" fn data(
        conn: keepsock_conn,
        buf: *const c_void,
        len: usize,
        user: *mut c_void,
    ) {
        let bytes = unsafe { std::slice::from_raw_parts(buf.cast(), len) };
        if let Some(call) = unsafe { &on(user).data } {
            call(&CConnection(conn), bytes);
        }
    }
    unsafe extern "C" fn close(conn: keepsock_conn, n: i32, user: *mut c_void) {
        if let Some(call) = unsafe { &on(user).close } {
            call(&CConnection(conn), close_reason(n).expect("a close reason"));
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
        on_open: event!(open),
        on_data: wanted.data.as_ref().map(|_| data as _),
        on_writable: event!(writable),
        on_eof: event!(finished),
        on_timer: event!(timer),
        on_drain: event!(drain),
        on_close: wanted.close.as_ref().map(|_| close as _),
        on_connect_failed: wanted.connect_failed.as_ref().map(|_| failed as _),
    }
}

impl Connection for CConnection {
    type Client = CClient;

    fn detach(&self, unread: &[u8]) -> Outcome<CClient> {
        let (buf, len) = (unread.as_ptr().cast(), unread.len());
        let mut pointer = null_mut();
        let detached =
            call(|e| unsafe { keepsock_conn_detach(self.0, buf, len, &raw mut pointer, e) });
        assert_eq!(detached.is_err(), pointer.is_null());
        detached.map(|()| CClient { pointer, lent: false })
    }

    fn send(&self, message: &[u8]) -> Outcome<()> {
        let (buf, len) = (message.as_ptr().cast(), message.len());
        call(|e| unsafe { keepsock_conn_send(self.0, buf, len, e) })
    }

    fn send_slices(&self, slices: &[&[u8]]) -> Outcome<()> {
        let slice = |s: &&[u8]| keepsock_slice { buf: s.as_ptr().cast(), len: s.len() };
        let slices: Vec<_> = slices.iter().map(slice).collect();
        call(|e| unsafe { keepsock_conn_send_slices(self.0, slices.as_ptr(), slices.len(), e) })
    }

    fn send_file(&self, fd: RawFd, offset: u64, len: u64) -> Outcome<()> {
        call(|e| unsafe { keepsock_conn_send_file(self.0, fd, offset, len, e) })
    }

    fn fd(&self) -> Outcome<RawFd> {
        let mut fd = NO_FD;
        call(|e| unsafe { keepsock_conn_fd(self.0, &raw mut fd, e) })?;
        Ok(fd)
    }

    fn close(&self) {
        unsafe { keepsock_conn_close(self.0, null_mut()) };
    }

    fn post(&self, function: OnConnection<Self>) -> Outcome<()> {
        unsafe extern "C" fn run(conn: keepsock_conn, user: *mut c_void) {
            let function = unsafe { Box::from_raw(user.cast::<OnConnection<CConnection>>()) };
            function(&CConnection(conn));
        }
        let user = Box::into_raw(Box::new(posted_that_may_skip(function)));
        let posted = call(|e| unsafe { keepsock_conn_post(self.0, Some(run), user.cast(), e) });
        posted.inspect_err(|_| drop(unsafe { Box::from_raw(user) }))
    }

    fn abort(&self) {
        unsafe { keepsock_conn_abort(self.0, null_mut()) };
    }

    fn shutdown_write(&self) {
        unsafe { keepsock_conn_shutdown_write(self.0, null_mut()) };
    }

    fn pause(&self) {
        unsafe { keepsock_conn_pause(self.0, null_mut()) };
    }

    fn resume(&self) {
        unsafe { keepsock_conn_resume(self.0, null_mut()) };
    }

    fn queued(&self) -> usize {
        keepsock_conn_queued(self.0)
    }

    fn is_open(&self) -> bool {
        keepsock_conn_is_open(self.0)
    }

    fn set_framing(&self, framing: Framing) -> Outcome<()> {
        let framing = framing_to_c(&framing);
        call(|e| unsafe { keepsock_conn_set_framing(self.0, &raw const framing, e) })
    }

    fn set_queue_limit(&self, bytes: usize) -> Outcome<()> {
        call(|e| unsafe { keepsock_conn_set_queue_limit(self.0, bytes, e) })
    }

    fn set_overflow_policy(&self, overflow_policy: OverflowPolicy) -> Outcome<()> {
        call(|e| unsafe { keepsock_conn_set_overflow_policy(self.0, overflow_policy as i32, e) })
    }

    fn set_timer(&self, ms: i64) -> Outcome<()> {
        call(|e| unsafe { keepsock_conn_set_timer(self.0, ms, e) })
    }

    fn join(&self, group: &str) -> Outcome<()> {
        call(|e| unsafe { keepsock_conn_join(self.0, c(group).as_ptr(), e) })
    }

    fn leave(&self, group: &str) {
        let left = call(|e| unsafe { keepsock_conn_leave(self.0, c(group).as_ptr(), e) });
        // The close callback may have begun in another thread.
        left.unwrap_or_else(|failure| {
            assert!(failure.is(keepsock::ErrorKind::Closed), "{failure:?}")
        });
    }

    fn set_data(&self, data: usize) {
        unsafe { keepsock_conn_set_user(self.0, data as *mut c_void, null_mut()) };
    }

    fn data(&self) -> usize {
        keepsock_conn_user(self.0) as usize
    }

    fn id(&self) -> u64 {
        self.0.id
    }

    fn place(&self) -> usize {
        // The entry in the table of all services, above a generation of 32 bits and a tag of 7.
        (self.0.id >> 39) as usize
    }

    fn close_reason(&self) -> Option<CloseReason> {
        close_reason(keepsock_conn_close_reason(self.0))
    }

    fn proxy_address(&self) -> Option<String> {
        let mut address: keepsock_address = unsafe { std::mem::zeroed() };
        let found = call(|e| unsafe { keepsock_conn_proxy_address(self.0, &raw mut address, e) });
        match found {
            Ok(()) => Some(text_of(&address)),
            Err(failure) => {
                assert!(failure.is(keepsock::ErrorKind::NotFound), "{failure:?}");
                None
            }
        }
    }

    fn five_tuple(&self) -> Outcome<Tuple> {
        let mut t: keepsock_five_tuple = unsafe { std::mem::zeroed() };
        let size = size_of_val(&t);
        call(|e| unsafe { keepsock_conn_five_tuple(self.0, &raw mut t, size, e) })?;
        Ok(tuple(&t))
    }

    fn stats(&self) -> Outcome<ConnStats> {
        let mut s: keepsock_connection_stats = unsafe { std::mem::zeroed() };
        let size = size_of_val(&s);
        call(|e| unsafe { keepsock_conn_get_stats(self.0, &raw mut s, size, e) })?;
        Ok(snap(&s))
    }

    fn keepalive(&self) -> Outcome<Option<(i64, i64, u32)>> {
        let mut k: keepsock_keepalive = unsafe { std::mem::zeroed() };
        let size = size_of_val(&k);
        call(|e| unsafe { keepsock_conn_keepalive(self.0, &raw mut k, size, e) })?;
        Ok(k.enabled.then_some((k.idle_ms, k.interval_ms, k.count)))
    }

    fn peer_credentials(&self) -> Outcome<Peer> {
        let mut peer: keepsock_credentials = unsafe { std::mem::zeroed() };
        let size = size_of_val(&peer);
        call(|e| unsafe { keepsock_conn_peer_credentials(self.0, &raw mut peer, size, e) })?;
        Ok(Peer { pid: peer.pid, uid: peer.uid, gid: peer.gid })
    }

    fn set_sockopt(&self, option: Sockopt, value: u32) -> Outcome<()> {
        call(|e| unsafe { keepsock_conn_set_sockopt(self.0, option as i32, value, e) })
    }

    fn sockopt(&self, option: Sockopt) -> Outcome<u32> {
        let mut value = 0;
        call(|e| unsafe { keepsock_conn_sockopt(self.0, option as i32, &raw mut value, e) })?;
        Ok(value)
    }

    fn keepalive_values(&self) -> Outcome<(i64, i64, u32)> {
        let mut k: keepsock_keepalive = unsafe { std::mem::zeroed() };
        let size = size_of_val(&k);
        call(|e| unsafe { keepsock_conn_keepalive(self.0, &raw mut k, size, e) })?;
        Ok((k.idle_ms, k.interval_ms, k.count))
    }

    fn set_keepalive(&self, idle: i64, interval: i64, count: u32) -> Outcome<()> {
        call(|e| unsafe { keepsock_conn_set_keepalive(self.0, idle, interval, count, e) })
    }

    fn disable_keepalive(&self) -> Outcome<()> {
        call(|e| unsafe { keepsock_conn_set_keepalive(self.0, KEEPSOCK_INFINITE, 0, 0, e) })
    }

    fn set_dead_after(&self, time: i64) -> Outcome<()> {
        call(|e| unsafe { keepsock_conn_set_dead_after(self.0, time, e) })
    }

    fn set_idle_timeout(&self, time: i64) -> Outcome<()> {
        call(|e| unsafe { keepsock_conn_set_idle_timeout(self.0, time, e) })
    }

    fn set_heartbeat(&self, bytes: &[u8], every: i64) -> Outcome<()> {
        let (data, len) = (bytes.as_ptr().cast(), bytes.len());
        call(|e| unsafe { keepsock_conn_set_heartbeat(self.0, every, data, len, e) })
    }

    fn set_heartbeat_timeout(&self, time: i64) -> Outcome<()> {
        call(|e| unsafe { keepsock_conn_set_heartbeat_timeout(self.0, time, e) })
    }
}

impl Service<CApi> for CService {
    fn connections(&self) -> u32 {
        self.stats().connections
    }

    fn broadcast(&self, message: &[u8]) -> (u32, u32) {
        let result = self.push(None, message).unwrap();
        (result.sent, result.cut)
    }

    fn push(&self, group: Option<&str>, message: &[u8]) -> Outcome<Sent> {
        let (mut sent, mut cut, mut dropped, mut rejected) = (0, 0, 0, 0);
        let (n, r) = (&raw mut sent, &raw mut cut);
        let (d, j) = (&raw mut dropped, &raw mut rejected);
        let (buf, len) = (message.as_ptr().cast(), message.len());
        let group = group.map(c);
        let group = group.as_ref().map_or(null(), |group| group.as_ptr());
        call(|e| unsafe {
            keepsock_service_broadcast(self.pointer, group, buf, len, n, r, d, j, e)
        })?;
        Ok(Sent { sent, cut, dropped, rejected })
    }

    fn add(&self, client: CClient, data: usize) -> Result<CConnection, (CClient, Failure)> {
        let (data, mut conn) = (data as *mut c_void, keepsock_conn { id: 77 });
        let added = call(|e| unsafe {
            keepsock_service_add(self.pointer, client.pointer, data, &raw mut conn, e)
        });
        assert_eq!(added.is_err(), conn.id == 77);
        added.map(|()| CConnection(conn)).map_err(|failure| (client, failure))
    }

    fn connect(&self, endpoint: &str, list: &[Opt<'_, CApi>], data: usize) -> Outcome<()> {
        let (endpoint, options) = (c(endpoint), options(list)?);
        let data = data as *mut c_void;
        call(|e| unsafe {
            keepsock_service_connect(self.pointer, endpoint.as_ptr(), options.0, data, e)
        })
    }

    fn reconnect(
        &self,
        mut reconnect: CReconnect,
        data: usize,
    ) -> Result<(), (CReconnect, Failure)> {
        let (before, data) = (reconnect.pointer, data as *mut c_void);
        let taken = call(|e| unsafe {
            keepsock_service_reconnect(self.pointer, &raw mut reconnect.pointer, data, e)
        });
        if let Err(failure) = taken {
            assert_eq!(reconnect.pointer, before);
            return Err((reconnect, failure));
        }
        assert!(reconnect.pointer.is_null());
        if let Some(told) = reconnect.told.take() {
            self.kept.lock().unwrap().push(told);
        }
        Ok(())
    }

    fn post(&self, function: Box<dyn FnOnce() + Send>) -> Outcome<()> {
        unsafe extern "C" fn run(user: *mut c_void) {
            let function = unsafe { Box::from_raw(user.cast::<Box<dyn FnOnce() + Send>>()) };
            function();
        }
        let callbacks = Callbacks::of_test();
        let function: Box<dyn FnOnce() + Send> = Box::new(move || callbacks.run(function));
        let user = Box::into_raw(Box::new(function));
        let posted =
            call(|e| unsafe { keepsock_service_post(self.pointer, Some(run), user.cast(), e) });
        posted.inspect_err(|_| drop(unsafe { Box::from_raw(user) }))
    }

    fn add_timer(&self, delay: i64, interval: i64, function: OnTimer) -> Outcome<u64> {
        unsafe extern "C" fn run(timer: u64, user: *mut c_void) {
            unsafe { (*user.cast::<OnTimer>())(timer) };
        }
        let mut function = Box::new(timer_that_may_skip(function));
        let (user, mut timer) = ((&raw mut *function).cast(), 0);
        self.kept.lock().unwrap().push(function);
        call(|e| unsafe {
            let timer = &raw mut timer;
            keepsock_service_add_timer(self.pointer, delay, interval, Some(run), user, timer, e)
        })?;
        Ok(timer)
    }

    fn remove_timer(&self, timer: u64) -> Outcome<()> {
        call(|e| unsafe { keepsock_service_remove_timer(self.pointer, timer, e) })
    }

    fn for_each(&self, mut visit: &mut dyn FnMut(&CConnection)) -> Outcome<()> {
        unsafe extern "C" fn run(conn: keepsock_conn, user: *mut c_void) {
            let visit = unsafe { &mut *user.cast::<&mut dyn FnMut(&CConnection)>() };
            visit(&CConnection(conn));
        }
        let user = (&raw mut visit).cast();
        call(|e| unsafe { keepsock_service_for_each(self.pointer, Some(run), user, e) })
    }

    fn stats(&self) -> Stats {
        let mut s: keepsock_service_stats = unsafe { std::mem::zeroed() };
        let size = size_of_val(&s);
        call(|e| unsafe { keepsock_service_get_stats(self.pointer, &raw mut s, size, e) }).unwrap();
        let ends = s.close_reasons.iter().zip(0..).filter(|(count, _)| **count > 0);
        Stats {
            accepting: s.accepting,
            connections: s.connections,
            opened: s.opened,
            closed: s.closed,
            received: s.bytes_received,
            written: s.bytes_written,
            sent: s.bytes_sent,
            queued: s.bytes_queued,
            dropped: s.bytes_dropped,
            dropped_messages: s.messages_dropped,
            ends: ends
                .map(|(count, number)| (close_reason(number).expect("a close reason"), *count))
                .collect(),
        }
    }

    fn dump(&self) -> String {
        sized_text(|buf, cap, needed, e| unsafe {
            keepsock_service_dump(self.pointer, buf, cap, needed, e)
        })
    }

    fn pause_accept(&self) -> Outcome<()> {
        call(|e| unsafe { keepsock_service_pause_accept(self.pointer, e) })
    }

    fn resume_accept(&self) -> Outcome<()> {
        call(|e| unsafe { keepsock_service_resume_accept(self.pointer, e) })
    }

    fn stop(&self) {
        call(|e| unsafe { keepsock_service_stop(self.pointer, e) }).unwrap();
    }

    fn wait_stopped(&self, ms: i64) -> Outcome<()> {
        call(|e| unsafe { keepsock_service_wait_stopped(self.pointer, ms, e) })
    }

    fn wait(&self, ms: i64) -> Outcome<()> {
        call(|e| unsafe { keepsock_service_wait(self.pointer, ms, e) })
    }

    fn drain(&self, limit_ms: i64) -> Outcome<(u32, u32)> {
        let (mut completed, mut reset) = (u32::MAX, u32::MAX);
        call(|e| unsafe {
            let (completed, reset) = (&raw mut completed, &raw mut reset);
            keepsock_service_drain(self.pointer, limit_ms, completed, reset, e)
        })?;
        Ok((completed, reset))
    }
}
