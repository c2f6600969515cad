//! pthread_cancel: no call of the C API is cancelled inside (E3).
//!
//! A thread with a pending cancellation makes each call, so that the first cancellation point that
//! the call reached with cancellation enabled would end the process. On a thread of the library,
//! pthread_cancel has no effect.

#![allow(unsafe_code)] // It calls C functions, as C would.
#![allow(clippy::undocumented_unsafe_blocks)]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::os::fd::AsRawFd;
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::support;
use crate::support::capi::framing_to_c;
use crate::support::{CApi, Client, Limit, TempDir, Transport, pair, process, system};
use keepsock::ffi::*;
use keepsock::{ErrorKind, Framing, LengthFormat};

unsafe extern "C-unwind" {
    fn pthread_testcancel();
    fn pthread_cancel(thread: libc::pthread_t) -> c_int;
    fn pthread_create(
        thread: *mut libc::pthread_t,
        attributes: *const c_void,
        start: unsafe extern "C-unwind" fn(*mut c_void) -> *mut c_void,
        argument: *mut c_void,
    ) -> c_int;
    fn pthread_join(thread: libc::pthread_t, result: *mut *mut c_void) -> c_int;
}

/// PTHREAD_CANCELED
const CANCELED: usize = usize::MAX;

type Work<'a> = Box<dyn FnMut() + 'a>;

/// Runs the work in its own thread, whose cancellation is pending.
fn cancelled(name: &str, work: impl FnMut()) {
    unsafe extern "C-unwind" fn start(work: *mut c_void) -> *mut c_void {
        unsafe {
            pthread_cancel(libc::pthread_self());
            (*work.cast::<Work<'_>>())();
            // The thread has no values that must be dropped when it unwinds.
            pthread_testcancel();
        }
        null_mut()
    }
    println!("{name}");
    let mut work: Work<'_> = Box::new(work);
    let (mut thread, mut result) = (0, null_mut());
    unsafe {
        let work = (&raw mut work).cast();
        assert_eq!(pthread_create(&raw mut thread, null(), start, work), 0);
        assert_eq!(pthread_join(thread, &raw mut result), 0);
    }
    let acted = result as usize == CANCELED;
    assert!(acted, "{name}: the cancellation does not act after the call");
}

fn is(status: i32, kind: ErrorKind) {
    assert_eq!(status, kind.code());
}

fn ok(status: i32) {
    assert_eq!(status, KEEPSOCK_OK);
}

/// An endpoint with a free port and a host name.
fn localhost(port: u16) -> CString {
    CString::new(format!("localhost:{port}")).unwrap()
}

/// E3: a pending cancellation does not interrupt calls on a connection that wait in the kernel, in
/// poll, or for a token.
#[test]
fn client_calls_survive_pthread_cancel() {
    let _limit = Limit::new("client_calls_survive_pthread_cancel");
    let p = pair::<CApi>(Transport::Unix);
    let (client, server) = (p.client.pointer, p.accepted.pointer);
    let framing = framing_to_c(&Framing::Prefixed { format: LengthFormat::U8, max: 64 });
    let mut buf = [0u8; 64];
    let (data, mut n) = (buf.as_mut_ptr().cast::<c_void>(), 0);
    let len = &raw mut n;
    let e = null_mut();
    unsafe {
        let mut token = null_mut();
        ok(keepsock_cancel_token_new(&raw mut token, e));
        // The kernel's timer, then poll, then a token.
        for (ms, with_token) in [(500, false), (20, false), (20, true)] {
            ok(keepsock_client_set_read_timeout(client, ms, e));
            let set = if with_token { token } else { null_mut() };
            ok(keepsock_client_set_cancel(client, set, e));
            cancelled("read", || {
                is(keepsock_client_read(client, data, 64, len, e), ErrorKind::TimedOut);
            });
            cancelled("read_exact", || {
                is(keepsock_client_read_exact(client, data, 64, e), ErrorKind::TimedOut);
            });
            cancelled("read_until", || {
                let status = keepsock_client_read_until(client, b';', data, 64, len, e);
                is(status, ErrorKind::TimedOut);
            });
            cancelled("read_line", || {
                let status = keepsock_client_read_line(client, data.cast(), 64, len, e);
                is(status, ErrorKind::TimedOut);
            });
            cancelled("read_message", || {
                let status =
                    keepsock_client_read_message(client, &raw const framing, data, 64, len, e);
                is(status, ErrorKind::TimedOut);
            });
            cancelled("read_slices", || {
                let one = keepsock_buffer { buf: data, cap: 64 };
                let status = keepsock_client_read_slices(client, &raw const one, 1, len, e);
                is(status, ErrorKind::TimedOut);
            });
            cancelled("read_fds", || {
                let (mut fds, mut count, no_flag) = ([-1; 4], 0, null_mut());
                let (first, count) = (fds.as_mut_ptr(), &raw mut count);
                let status =
                    keepsock_client_recv_fds(client, data, 64, first, 4, len, count, no_flag, e);
                is(status, ErrorKind::TimedOut);
            });
        }
        cancelled("wait_hangup", || {
            let mut end = 0;
            let status = keepsock_client_wait_hangup(client, 20, &raw mut end, e);
            is(status, ErrorKind::TimedOut);
        });
        let large = vec![1u8; 8 << 20];
        let (bytes, many) = (large.as_ptr().cast::<c_void>(), large.len());
        let file = std::fs::File::open(std::env::current_exe().unwrap()).unwrap();
        for ms in [500, 20] {
            ok(keepsock_client_set_write_timeout(client, ms, e));
            cancelled("write_all", || {
                is(keepsock_client_write_all(client, bytes, many, e), ErrorKind::TimedOut);
            });
            cancelled("write", || {
                is(keepsock_client_write(client, bytes, many, len, e), ErrorKind::TimedOut);
            });
            cancelled("write_slices", || {
                let one = keepsock_slice { buf: bytes, len: many };
                let status = keepsock_client_write_slices(client, &raw const one, 1, e);
                is(status, ErrorKind::TimedOut);
            });
            cancelled("send_file", || {
                let mut sent = 0;
                let fd = file.as_raw_fd();
                let status = keepsock_client_send_file(client, fd, 0, 4 << 20, &raw mut sent, e);
                is(status, ErrorKind::TimedOut);
            });
        }
        // The objects are usable.
        ok(keepsock_client_write_all(server, b"line\n".as_ptr().cast(), 5, e));
        ok(keepsock_client_read_line(client, data.cast(), 64, len, e));
        assert_eq!(n, 4);
        cancelled("shutdown_write", || ok(keepsock_client_shutdown_write(client, e)));
        ok(keepsock_client_set_close_timeout(client, 20, e));
        cancelled("close", || {
            keepsock_client_close(client, e);
        });
        cancelled("abort", || ok(keepsock_client_abort(server, e)));
        keepsock_cancel_token_free(token);
    }
}

/// E3: a pending cancellation does not interrupt calls that create sockets: lookups, files of Unix
/// sockets, the wait of an accept.
#[test]
fn connect_and_accept_survive_pthread_cancel() {
    let _limit = Limit::new("connect_and_accept_survive_pthread_cancel");
    let dir = TempDir::new();
    let path = CString::new(dir.endpoint("s")).unwrap();
    let e = null_mut();
    let (mut server, mut unix, mut client, mut accepted) =
        (null_mut(), null_mut(), null_mut(), null_mut());
    unsafe {
        cancelled("listen", || {
            ok(keepsock_server_listen(c"127.0.0.1:0".as_ptr(), null(), &raw mut server, e));
        });
        cancelled("listen on a path", || {
            ok(keepsock_server_listen(path.as_ptr(), null(), &raw mut unix, e));
        });
        let name = localhost(keepsock_server_port(server));
        cancelled("connect", || {
            ok(keepsock_client_connect(name.as_ptr(), null(), &raw mut client, e));
        });
        cancelled("accept", || ok(keepsock_server_accept(server, &raw mut accepted, e)));
        cancelled("free", || {
            keepsock_client_free(client);
            keepsock_client_free(accepted);
        });
        ok(keepsock_server_set_accept_timeout(server, 20, e));
        cancelled("accept that times out", || {
            let mut none = null_mut();
            is(keepsock_server_accept(server, &raw mut none, e), ErrorKind::TimedOut);
        });
        let mut pending = null_mut();
        cancelled("start", || {
            ok(keepsock_pending_connect_start(name.as_ptr(), null(), &raw mut pending, e));
        });
        cancelled("wait", || ok(keepsock_pending_connect_wait(pending, &raw mut client, e)));
        cancelled("free", || {
            keepsock_pending_connect_free(pending);
            keepsock_client_free(client);
        });
        let gone = support::refused_address().to_string();
        let gone = CString::new(gone).unwrap();
        let mut reconnect = null_mut();
        ok(keepsock_reconnect_new(gone.as_ptr(), null(), &raw mut reconnect, e));
        ok(keepsock_reconnect_set_timeout(reconnect, 50, e));
        cancelled("reconnect", || {
            let mut none = null_mut();
            is(keepsock_reconnect_connect(reconnect, &raw mut none, e), ErrorKind::Refused);
        });
        keepsock_reconnect_free(reconnect);
        cancelled("close a listener", || ok(keepsock_server_close(unix, e)));
        cancelled("free listeners", || {
            keepsock_server_free(unix);
            keepsock_server_free(server);
        });
    }
    assert!(!dir.path("s").exists());
}

/// E3: a pending cancellation does not interrupt datagram calls, single or in batches.
#[test]
fn datagram_calls_survive_pthread_cancel() {
    let _limit = Limit::new("datagram_calls_survive_pthread_cancel");
    let e = null_mut();
    let (mut socket, mut peer) = (null_mut(), null_mut());
    let mut buf = [0u8; 64];
    let data = buf.as_mut_ptr().cast::<c_void>();
    unsafe {
        let mut info: keepsock_datagram_info = std::mem::zeroed();
        let (info, size) = (&raw mut info, size_of::<keepsock_datagram_info>());
        cancelled("bind", || {
            ok(keepsock_datagram_bind(c"*:0".as_ptr(), null(), &raw mut socket, e));
        });
        let mut tuple: keepsock_five_tuple = std::mem::zeroed();
        let tuple_size = size_of_val(&tuple);
        ok(keepsock_datagram_five_tuple(socket, &raw mut tuple, tuple_size, e));
        let name = localhost(tuple.local_port);
        cancelled("connect", || {
            ok(keepsock_datagram_connect(name.as_ptr(), null(), &raw mut peer, e));
        });
        cancelled("send", || ok(keepsock_datagram_send(peer, data, 3, e)));
        cancelled("recv", || ok(keepsock_datagram_recv(socket, data, 64, info, size, e)));
        cancelled("reply", || ok(keepsock_datagram_reply(socket, info, data, 3, e)));
        cancelled("recv, plain", || ok(keepsock_datagram_recv(peer, data, 64, info, size, e)));
        for socket in [socket, peer] {
            ok(keepsock_datagram_set_read_timeout(socket, 20, e));
            cancelled("recv that times out", || {
                let status = keepsock_datagram_recv(socket, data, 64, info, size, e);
                is(status, ErrorKind::TimedOut);
            });
            cancelled("recv_batch that times out", || {
                let mut one: keepsock_recv_item = std::mem::zeroed();
                (one.buf, one.cap) = (data, 64);
                let (mut n, size) = (0, size_of_val(&one));
                let (batch, n) = (&raw mut one, &raw mut n);
                let status = keepsock_datagram_recv_batch(socket, batch, 1, size, n, e);
                is(status, ErrorKind::TimedOut);
            });
        }
        unsafe extern "C" fn ignore(
            _: *mut keepsock_datagram,
            _: *const keepsock_datagram_info,
            _: *const c_void,
            _: usize,
            _: *mut c_void,
        ) {
        }
        let mut service = null_mut();
        cancelled("serve", || {
            let out = &raw mut service;
            ok(keepsock_datagram_serve(socket, null(), Some(ignore), null_mut(), out, e));
        });
        cancelled("add", || {
            is(keepsock_datagram_service_add(service, socket, e), ErrorKind::WrongState);
        });
        cancelled("wait", || {
            is(keepsock_datagram_service_wait(service, 20, e), ErrorKind::TimedOut);
        });
        cancelled("stop and free", || {
            ok(keepsock_datagram_service_stop(service, e));
            keepsock_datagram_service_free(service);
        });
        cancelled("close and free", || {
            ok(keepsock_datagram_close(peer, e));
            keepsock_datagram_free(peer);
            keepsock_datagram_free(socket);
        });
    }
}

unsafe extern "C" fn opened(conn: keepsock_conn, user: *mut c_void) {
    let connections = unsafe { &*user.cast::<std::sync::mpsc::Sender<keepsock_conn>>() };
    connections.send(conn).unwrap();
}

unsafe extern "C" fn serve_nothing(_: *mut keepsock_client, _: *mut c_void) {}

/// A logger that reaches a cancellation point.
unsafe extern "C" fn sleepy(_: i32, _: *const c_char, _: *const c_char, _: *mut c_void) {
    unsafe { libc::usleep(1) };
}

/// E3: a pending cancellation does not interrupt services, calls on their connections, and a log
/// callback.
#[test]
fn service_calls_survive_pthread_cancel() {
    let _limit = Limit::new("service_calls_survive_pthread_cancel");
    let e = null_mut();
    let (connections, open) = std::sync::mpsc::channel::<keepsock_conn>();
    let mut callbacks: keepsock_callbacks = unsafe { std::mem::zeroed() };
    callbacks.size = size_of_val(&callbacks);
    callbacks.on_open = Some(opened);
    unsafe {
        cancelled("log", || {
            let level = keepsock_log_level::Trace as i32;
            ok(keepsock_log_set(level, Some(sleepy), null_mut(), e));
        });
        let (mut server, mut service, mut client) = (null_mut(), null_mut(), null_mut());
        ok(keepsock_server_listen(c"127.0.0.1:0".as_ptr(), null(), &raw mut server, e));
        cancelled("serve_events", || {
            let (callbacks, user) = (&raw const callbacks, (&raw const connections).cast_mut());
            let out = &raw mut service;
            ok(keepsock_server_serve_events(server, null(), callbacks, user.cast(), out, e));
        });
        let name = localhost(keepsock_server_port(server));
        cancelled("connect", || {
            ok(keepsock_client_connect(name.as_ptr(), null(), &raw mut client, e));
        });
        let conn = open.recv().unwrap();
        cancelled("send", || {
            let bytes = vec![7u8; 600_000];
            let data = bytes.as_ptr().cast();
            // Bytes that the kernel does not accept are queued, which wakes the loop.
            ok(keepsock_conn_send(conn, data, bytes.len(), e));
        });
        cancelled("pause, resume", || {
            ok(keepsock_conn_pause(conn, e));
            ok(keepsock_conn_resume(conn, e));
        });
        cancelled("wait", || is(keepsock_service_wait(service, 20, e), ErrorKind::TimedOut));
        cancelled("wait_stopped", || {
            is(keepsock_service_wait_stopped(service, 20, e), ErrorKind::TimedOut);
        });
        cancelled("service_connect", || {
            ok(keepsock_service_connect(service, name.as_ptr(), null(), null_mut(), e));
        });
        cancelled("drain", || {
            let (mut completed, mut reset) = (0, 0);
            let (completed, reset) = (&raw mut completed, &raw mut reset);
            ok(keepsock_service_drain(service, 20, completed, reset, e));
        });
        cancelled("free", || {
            keepsock_service_free(service);
            keepsock_client_free(client);
            keepsock_server_free(server);
        });
        ok(keepsock_server_listen(c"127.0.0.1:0".as_ptr(), null(), &raw mut server, e));
        cancelled("serve", || {
            let (handler, out) = (Some(serve_nothing as _), &raw mut service);
            ok(keepsock_server_serve(server, null(), handler, null_mut(), out, e));
        });
        cancelled("stop and free", || {
            ok(keepsock_service_stop(service, e));
            keepsock_service_free(service);
            keepsock_server_free(server);
        });
        cancelled("log", || ok(keepsock_log_set(0, None, null_mut(), e)));
    }
}

/// E3: a cancellation that arrives while an accept waits acts after the accept has returned, and
/// the caller owns the accepted connection.
#[test]
fn accept_that_is_cancelled_while_it_waits_returns() {
    struct Accept {
        server: *mut keepsock_server,
        client: *mut keepsock_client,
        status: i32,
    }
    unsafe extern "C-unwind" fn start(accept: *mut c_void) -> *mut c_void {
        unsafe {
            let accept = accept.cast::<Accept>();
            let out = &raw mut (*accept).client;
            (*accept).status = keepsock_server_accept((*accept).server, out, null_mut());
            pthread_testcancel();
        }
        null_mut()
    }
    let _limit = Limit::new("accept_that_is_cancelled_while_it_waits_returns");
    let mut accept = Accept { server: null_mut(), client: null_mut(), status: 1 };
    let (mut thread, mut result, e) = (0, null_mut(), null_mut());
    unsafe {
        let out = &raw mut accept.server;
        ok(keepsock_server_listen(c"127.0.0.1:0".as_ptr(), null(), out, e));
        let server = accept.server;
        let argument = (&raw mut accept).cast();
        assert_eq!(pthread_create(&raw mut thread, null(), start, argument), 0);
        // Long enough that the call waits. If it has not begun, the cancellation is pending.
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(pthread_cancel(thread), 0);
        let since = Instant::now();
        let mut client = null_mut();
        let name = localhost(keepsock_server_port(server));
        ok(keepsock_client_connect(name.as_ptr(), null(), &raw mut client, e));
        assert_eq!(pthread_join(thread, &raw mut result), 0);
        assert!(since.elapsed() < Duration::from_secs(30));
        assert_eq!((accept.status, result as usize), (KEEPSOCK_OK, CANCELED));
        keepsock_client_free(accept.client);
        keepsock_client_free(client);
        keepsock_server_free(server);
    }
}

/// The service name whose lookup cancels its thread.
const CANCELS: &CStr = c"cancelled-service";
/// The number of lookups of [`CANCELS`] that have continued.
static CONTINUED: AtomicU32 = AtomicU32::new(0);

/// Replaces libc's function: the linker uses a program's own symbol first.
///
/// # Safety
/// As getaddrinfo(3).
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn getaddrinfo(
    node: *const c_char,
    service: *const c_char,
    hints: *const libc::addrinfo,
    list: *mut *mut libc::addrinfo,
) -> c_int {
    type Function = unsafe extern "C" fn(
        *const c_char,
        *const c_char,
        *const libc::addrinfo,
        *mut *mut libc::addrinfo,
    ) -> c_int;
    unsafe {
        if !service.is_null() && CStr::from_ptr(service) == CANCELS {
            system::cancel_this_thread();
            CONTINUED.fetch_add(1, Ordering::SeqCst);
            return libc::EAI_SERVICE;
        }
        let function = libc::dlsym(libc::RTLD_NEXT, c"getaddrinfo".as_ptr());
        assert!(!function.is_null());
        std::mem::transmute::<*mut c_void, Function>(function)(node, service, hints, list)
    }
}

/// E3: pthread_cancel has no effect on a thread that looks names up.
#[test]
fn lookup_threads_ignore_pthread_cancel() {
    let test = test_name!("lookup_threads_ignore_pthread_cancel");
    process::in_process(&test, Duration::from_secs(30), || {
        let (endpoint, mut client) = (c"127.0.0.1:cancelled-service", null_mut());
        for count in 1..=2 {
            let status = unsafe {
                keepsock_client_connect(endpoint.as_ptr(), null(), &raw mut client, null_mut())
            };
            is(status, ErrorKind::NotFound);
            assert_eq!(CONTINUED.load(Ordering::SeqCst), count);
        }
    });
}

/// Whether the log callback has cancelled a thread of the library.
static CANCELLED: AtomicU32 = AtomicU32::new(0);

unsafe extern "C" fn cancel_closer(_: i32, _: *const c_char, _: *const c_char, _: *mut c_void) {
    if std::thread::current().name() == Some("keepsock-close") {
        system::cancel_this_thread();
        CANCELLED.fetch_add(1, Ordering::SeqCst);
    }
}

/// E3: pthread_cancel has no effect on the thread that completes closes.
#[test]
fn background_closer_ignores_pthread_cancel() {
    let test = test_name!("background_closer_ignores_pthread_cancel");
    process::in_process(&test, Duration::from_secs(30), || {
        let level = keepsock_log_level::Trace as i32;
        unsafe { ok(keepsock_log_set(level, Some(cancel_closer), null_mut(), null_mut())) };
        for count in 1..=2 {
            let (client, peer) = support::with_raw_peer::<CApi>(&[]);
            client.write_all(b"reply").unwrap();
            drop(client);
            // The thread waits for the peer's FIN, and logs the reset.
            socket2::SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
            drop(peer);
            support::eventually("a log event", || CANCELLED.load(Ordering::SeqCst) == count);
        }
    });
}
