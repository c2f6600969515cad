//! Fault injection: the behavior of the C functions when a system call fails (A2, D1).
//!
//! A thread with a seccomp filter makes the call. Each system call that it reaches fails once with
//! each error number that its manual page lists. [`Machine::each`](machine::Machine::each)
//! describes the checks.

#![allow(non_upper_case_globals)] // The names of libc's constants.
#![allow(unsafe_code)] // It calls C functions, as C would.
#![allow(clippy::undocumented_unsafe_blocks)]

mod copies;
mod machine;
mod memory;

use std::ffi::{CStr, CString, c_void};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::ptr::{null, null_mut};
use std::sync::LazyLock;
use std::thread;
use std::time::Duration;

use crate::support::TempDir;
use crate::support::capi::framing_to_c;
use crate::support::{process, timing};
use keepsock::ffi::*;
use keepsock::{ErrorKind, Framing, LengthFormat};
use libc::*;
use machine::{Error, LOST, Machine, Out};

/// A handle that is freed at the end.
struct Handle<T>(*mut T, unsafe extern "C" fn(*mut T));

impl<T> Drop for Handle<T> {
    fn drop(&mut self) {
        unsafe { self.1(self.0) };
    }
}

fn ok(status: i32) {
    assert_eq!(status, KEEPSOCK_OK);
}

/// Creates a handle by a call that succeeds.
fn made<T>(free: unsafe extern "C" fn(*mut T), make: impl FnOnce(*mut *mut T) -> i32) -> Handle<T> {
    let mut handle = null_mut();
    ok(make(&raw mut handle));
    Handle(handle, free)
}

/// A message and a line: the length prefix of one byte, three letters, and a line end.
const INPUT: &[u8] = b"\x04abc\n\x04abc\n\x04abc\n";
static FRAMING: keepsock_framing =
    framing_to_c(&Framing::Prefixed { format: LengthFormat::U8, max: 64 });
static LISTENER: LazyLock<TcpListener> =
    LazyLock::new(|| TcpListener::bind("127.0.0.1:0").unwrap());

fn c(text: &str) -> CString {
    CString::new(text).unwrap()
}

fn raw_endpoint() -> CString {
    c(&LISTENER.local_addr().unwrap().to_string())
}

type Options = Handle<keepsock_options>;

fn options() -> Options {
    made(keepsock_options_free, |o| unsafe { keepsock_options_new(o, null_mut()) })
}

/// A connection with its raw peer, which has sent [`INPUT`].
struct Conn {
    client: Handle<keepsock_client>,
    _peer: OwnedFd,
    _token: Option<Handle<keepsock_cancel_token>>,
    buf: *mut c_void,
}

static BUFFER: LazyLock<usize> = LazyLock::new(|| vec![7u64; 8192].leak().as_mut_ptr() as usize);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Plain,
    Short,
    Token,
    Alive,
    Unix,
}

const KINDS: [Kind; 5] = [Kind::Plain, Kind::Short, Kind::Token, Kind::Alive, Kind::Unix];

fn connection(kind: Kind) -> Conn {
    let options = options();
    let (o, e) = (options.0, null_mut());
    let mut token = None;
    unsafe {
        let ms = if kind == Kind::Short { 100 } else { 1000 };
        ok(keepsock_options_set_read_timeout(o, ms, e));
        ok(keepsock_options_set_write_timeout(o, ms, e));
        ok(keepsock_options_set_close_timeout(o, 0, e));
        if kind == Kind::Token {
            let made = made(keepsock_cancel_token_free, |t| keepsock_cancel_token_new(t, e));
            ok(keepsock_options_set_cancel(o, made.0, e));
            token = Some(made);
        }
        if kind == Kind::Alive {
            ok(keepsock_options_set_dead_after(o, 60_000, e));
            ok(keepsock_options_set_idle_timeout(o, 60_000, e));
            ok(keepsock_options_set_heartbeat(o, 20_000, c"h".as_ptr().cast(), 1, e));
        }
    }
    let (client, peer) = if kind == Kind::Unix {
        let (mine, mut peer) = UnixStream::pair().unwrap();
        peer.write_all(INPUT).unwrap();
        let fd = mine.into_raw_fd();
        let client = |out| unsafe { keepsock_client_from_fd(fd, o, out, e) };
        (made(keepsock_client_free, client), peer.into())
    } else {
        drain();
        let client = |out| unsafe { keepsock_client_connect(raw_endpoint().as_ptr(), o, out, e) };
        let client = made(keepsock_client_free, client);
        let (mut peer, _) = LISTENER.accept().unwrap();
        peer.write_all(INPUT).unwrap();
        (client, peer.into())
    };
    Conn { client, _peer: peer, _token: token, buf: *BUFFER as *mut c_void }
}

fn nothing<S>(_: &S, _: &Out) {}

fn with_machine(test: &str, scenes: impl FnOnce(&mut Machine)) {
    process::in_process(&test_name!(test), timing::ms(300_000), || {
        let mut machine = Machine::new();
        scenes(&mut machine);
        machine.report();
    });
}

/// A2: calls on a connection.
#[test]
fn client_calls_with_faults_return_listed_statuses() {
    with_machine("client_calls_with_faults_return_listed_statuses", |m| {
        for kind in KINDS {
            client_calls(m, kind);
        }
    });
}

fn client_calls(m: &mut Machine, kind: Kind) {
    macro_rules! on_client {
        ($($function:ident ($s:ident, $p:ident, $o:ident) ($($argument:expr),*);)*) => {$(
            m.each(
                &format!("{}, {kind:?}", stringify!($function)),
                false,
                |_| connection(kind),
                |$s, $o, e| unsafe {
                    let $p = $s.client.0;
                    $function($($argument,)* e)
                },
                nothing,
            );
        )*};
    }
    on_client! {
        keepsock_client_read(s, p, o) (p, s.buf, 64, o.at(0));
        keepsock_client_peek(s, p, o) (p, s.buf, 64, o.at(0));
        keepsock_client_read_exact(s, p, _o) (p, s.buf, 5);
        keepsock_client_read_until(s, p, o) (p, b'\n', s.buf, 64, o.at(0));
        keepsock_client_read_line(s, p, o) (p, s.buf.cast(), 64, o.at(0));
        keepsock_client_read_message(s, p, o) (p, &raw const FRAMING, s.buf, 64, o.at(0));
        keepsock_client_read_slices(s, p, o)
            (p, &keepsock_buffer { buf: s.buf, cap: 64 }, 1, o.at(0));
        keepsock_client_write(s, p, o) (p, s.buf, 64, o.at(0));
        keepsock_client_write_all(s, p, _o) (p, s.buf, 64);
        keepsock_client_write_str(_s, p, _o) (p, c"abc".as_ptr());
        keepsock_client_write_message(s, p, _o) (p, &raw const FRAMING, s.buf, 64);
        keepsock_client_write_slices(s, p, _o)
            (p, &keepsock_slice { buf: s.buf, len: 64 }, 1);
        keepsock_client_shutdown_write(_s, p, _o) (p);
        keepsock_client_close(_s, p, _o) (p);
        keepsock_client_abort(_s, p, _o) (p);
        keepsock_client_set_read_timeout(_s, p, _o) (p, 700);
        keepsock_client_set_write_timeout(_s, p, _o) (p, 700);
        keepsock_client_set_close_timeout(_s, p, _o) (p, 700);
        keepsock_client_set_nonblocking(_s, p, _o) (p, true);
        keepsock_client_set_cancel(_s, p, _o) (p, null());
        keepsock_client_five_tuple(_s, p, o) (p, o.at(0), size_of::<keepsock_five_tuple>());
        keepsock_client_get_stats(_s, p, o) (p, o.at(0), size_of::<keepsock_connection_stats>());
        keepsock_client_fd(_s, p, o) (p, o.at(0));
    }
    if kind == Kind::Unix {
        on_client! {
            keepsock_client_peer_credentials(_s, p, o)
                (p, o.at(0), size_of::<keepsock_credentials>());
            keepsock_client_send_fds(s, p, o) (p, s.buf, 3, &0, 1, o.at(0));
            keepsock_client_recv_fds(s, p, o)
                (p, s.buf, 64, o.at(8), 4, o.at(0), o.at(1), o.at(2));
        }
    } else {
        on_client! {
            keepsock_client_set_keepalive(_s, p, _o) (p, 10_000, 1000, 3);
            keepsock_client_keepalive(_s, p, o) (p, o.at(0), size_of::<keepsock_keepalive>());
            keepsock_client_set_dead_after(_s, p, _o) (p, 60_000);
            keepsock_client_set_idle_timeout(_s, p, _o) (p, 60_000);
            keepsock_client_set_heartbeat(s, p, _o) (p, 20_000, s.buf, 1);
            keepsock_client_check_liveness(_s, p, o) (p, o.at(0));
        }
    }
    if kind == Kind::Plain {
        on_client! { keepsock_client_set_keepalive(_s, p, _o) (p, KEEPSOCK_INFINITE, 0, 0); }
    }
    let file = std::fs::File::open("/proc/self/exe").unwrap();
    on_client! {
        keepsock_client_send_file(_s, p, o) (p, file.as_raw_fd(), 0, 100, o.at(0));
    }
    let release = "keepsock_client_release_fd";
    m.each(
        &format!("{release}, {kind:?}"),
        false,
        |_| connection(kind),
        |s, o, e| unsafe { keepsock_client_release_fd(s.client.0, o.at(0), e) },
        |_, o| drop(unsafe { OwnedFd::from_raw_fd(o.0[0] as i32) }),
    );
    m.each(
        &format!("keepsock_client_wait_hangup, {kind:?}"),
        false,
        |_| {
            let s = connection(kind);
            unsafe { shutdown(s._peer.as_raw_fd(), SHUT_RDWR) };
            s
        },
        |s, o, e| unsafe { keepsock_client_wait_hangup(s.client.0, 1000, o.at(0), e) },
        nothing,
    );
}

/// A2: connects, in one call and step by step.
#[test]
fn connect_calls_with_faults_return_listed_statuses() {
    with_machine("connect_calls_with_faults_return_listed_statuses", connect_calls);
}

fn drain() {
    LISTENER.set_nonblocking(true).unwrap();
    while LISTENER.accept().is_ok() {}
    LISTENER.set_nonblocking(false).unwrap();
}

fn connect_calls(m: &mut Machine) {
    let dir = TempDir::new();
    let _unix = std::os::unix::net::UnixListener::bind(dir.path("s")).unwrap();
    let port = LISTENER.local_addr().unwrap().port();
    let endpoints = [raw_endpoint(), c(&dir.endpoint("s")), c(&format!("localhost:{port}"))];
    let free = |out: &Out| {
        unsafe { keepsock_client_free(out.handle()) };
        drain();
    };
    for (i, endpoint) in endpoints.iter().enumerate() {
        let endpoint = endpoint.as_ptr();
        let make = |_: &Machine| {
            let o = options();
            unsafe {
                ok(keepsock_options_set_connect_timeout(o.0, 150, null_mut()));
                ok(keepsock_options_set_close_timeout(o.0, 0, null_mut()));
                if i != 1 {
                    ok(keepsock_options_set_dead_after(o.0, 60_000, null_mut()));
                    ok(keepsock_options_set_local_endpoint(
                        o.0,
                        c"127.0.0.1:0".as_ptr(),
                        null_mut(),
                    ));
                }
            }
            o
        };
        m.each(
            &format!("keepsock_client_connect, {i}"),
            false,
            make,
            |s, o, e| unsafe { keepsock_client_connect(endpoint, s.0, o.at(0), e) },
            |_, o| free(o),
        );
        let start =
            |s: &Options, out, e| unsafe { keepsock_pending_connect_start(endpoint, s.0, out, e) };
        m.each(
            &format!("keepsock_pending_connect_start, {i}"),
            false,
            make,
            |s, o, e| start(s, o.at(0), e),
            |_, o| {
                unsafe { keepsock_pending_connect_free(o.handle()) };
                drain();
            },
        );
        let started = |m: &Machine| {
            let o = make(m);
            made(keepsock_pending_connect_free, |out| start(&o, out, null_mut()))
        };
        m.each(
            &format!("keepsock_pending_connect_wait, {i}"),
            false,
            started,
            |s, o, e| unsafe { keepsock_pending_connect_wait(s.0, o.at(0), e) },
            |_, o| free(o),
        );
        m.each(
            &format!("keepsock_pending_connect_fd, {i}"),
            false,
            started,
            |s, o, e| unsafe { keepsock_pending_connect_fd(s.0, o.at(0), e) },
            nothing,
        );
        m.each(
            &format!("keepsock_pending_connect_finish, {i}"),
            false,
            |m| {
                let s = started(m);
                let mut fd = -1;
                unsafe { ok(keepsock_pending_connect_fd(s.0, &raw mut fd, null_mut())) };
                let mut ready = pollfd { fd, events: POLLIN, revents: 0 };
                unsafe { poll(&raw mut ready, 1, 200) };
                s
            },
            |s, o, e| unsafe {
                let mut status = keepsock_pending_connect_finish(s.0, o.at(0), e);
                while status == ErrorKind::WouldBlock.code() {
                    thread::sleep(Duration::from_micros(100));
                    keepsock_error_free(*e);
                    status = keepsock_pending_connect_finish(s.0, o.at(0), e);
                }
                status
            },
            |_, o| free(o),
        );
        m.each(
            &format!("keepsock_reconnect_connect, {i}"),
            false,
            |m| {
                let (o, e) = (make(m), null_mut());
                let r = made(keepsock_reconnect_free, |r| unsafe {
                    keepsock_reconnect_new(endpoint, o.0, r, e)
                });
                unsafe { ok(keepsock_reconnect_set_timeout(r.0, 200, e)) };
                unsafe { ok(keepsock_reconnect_set_backoff(r.0, 1, 2, e)) };
                r
            },
            |s, o, e| unsafe { keepsock_reconnect_connect(s.0, o.at(0), e) },
            |_, o| free(o),
        );
    }
    let stream = || UnixStream::pair().unwrap();
    m.each(
        "keepsock_client_from_fd",
        false,
        |_| (options(), stream()),
        |s, o, e| from_fd(&s.1.0, |fd| unsafe { keepsock_client_from_fd(fd, s.0.0, o.at(0), e) }),
        |_, o| free(o),
    );
    m.each(
        "keepsock_cancel_token_new",
        false,
        |_| (),
        |(), o, e| unsafe { keepsock_cancel_token_new(o.at(0), e) },
        |(), o| unsafe { keepsock_cancel_token_free(o.handle()) },
    );
    m.each(
        "keepsock_address_parse",
        false,
        |_| (),
        |(), o, e| unsafe { keepsock_address_parse(c"127.0.0.1:1".as_ptr(), o.at(0), e) },
        nothing,
    );
}

/// Calls with a copy of the descriptor, which is closed if the call has not adopted it.
fn from_fd(fd: &impl AsRawFd, call: impl FnOnce(c_int) -> i32) -> i32 {
    let fd = unsafe { dup(fd.as_raw_fd()) };
    let status = call(fd);
    if status != 0 {
        assert_eq!(unsafe { close(fd) }, 0);
    }
    status
}

type Server = Handle<keepsock_server>;

fn server(endpoints: &[&CStr]) -> Server {
    server_with(endpoints, null())
}

fn server_with(endpoints: &[&CStr], options: *const keepsock_options) -> Server {
    let endpoints: Vec<_> = endpoints.iter().map(|e| e.as_ptr()).collect();
    let (first, count) = (endpoints.as_ptr(), endpoints.len());
    let server = made(keepsock_server_free, |out| unsafe {
        keepsock_server_listen_all(first, count, options, out, null_mut())
    });
    unsafe { ok(keepsock_server_set_accept_timeout(server.0, 300, null_mut())) };
    server
}

fn raw_client(server: &Server) -> TcpStream {
    let port = unsafe { keepsock_server_port(server.0) };
    let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
    client.set_read_timeout(Some(Duration::from_millis(700))).unwrap();
    client
}

const ANY_PORT: &CStr = c"127.0.0.1:0";

/// A2: calls on listeners.
#[test]
fn server_calls_with_faults_return_listed_statuses() {
    with_machine("server_calls_with_faults_return_listed_statuses", server_calls);
}

fn server_calls(m: &mut Machine) {
    let dir = TempDir::new();
    let path = c(&dir.endpoint("s"));
    let free = |out: &Out| unsafe { keepsock_server_free(out.handle()) };
    for (name, endpoint) in [("TCP", ANY_PORT), ("Unix", path.as_c_str())] {
        m.each(
            &format!("keepsock_server_listen, {name}"),
            false,
            |_| {
                let (o, e) = (options(), null_mut());
                if name == "Unix" {
                    unsafe { ok(keepsock_options_set_unix_mode(o.0, 0o660, e)) };
                    unsafe { ok(keepsock_options_set_unix_owner(o.0, getuid().into(), -1, e)) };
                } else {
                    unsafe { ok(keepsock_options_set_dead_after(o.0, 60_000, e)) };
                }
                o
            },
            |s, o, e| unsafe { keepsock_server_listen(endpoint.as_ptr(), s.0, o.at(0), e) },
            |_, o| free(o),
        );
        let both = [endpoint.as_ptr(), ANY_PORT.as_ptr()];
        m.each(
            &format!("keepsock_server_listen_all, {name}"),
            false,
            |_| (),
            |(), o, e| unsafe { keepsock_server_listen_all(both.as_ptr(), 2, null(), o.at(0), e) },
            |(), o| free(o),
        );
        m.each(
            &format!("keepsock_server_close, {name}"),
            false,
            |_| server(&[endpoint]),
            |s, _, e| unsafe { keepsock_server_close(s.0, e) },
            nothing,
        );
        m.each(
            &format!("keepsock_server_release_fd, {name}"),
            false,
            |_| server(&[endpoint]),
            |s, o, e| unsafe { keepsock_server_release_fd(s.0, o.at(0), e) },
            |_, o| {
                drop(unsafe { OwnedFd::from_raw_fd(o.0[0] as i32) });
                let _ = std::fs::remove_file(dir.path("s"));
            },
        );
    }
    m.each(
        "keepsock_server_from_fd",
        false,
        |_| (options(), TcpListener::bind("127.0.0.1:0").unwrap()),
        |s, o, e| from_fd(&s.1, |fd| unsafe { keepsock_server_from_fd(fd, s.0.0, o.at(0), e) }),
        |_, o| free(o),
    );
    for endpoints in [&[ANY_PORT][..], &[ANY_PORT, ANY_PORT]] {
        let with_clients = |_: &Machine| {
            let server = server(endpoints);
            let clients = [raw_client(&server), raw_client(&server)];
            (server, clients)
        };
        m.each(
            &format!("keepsock_server_accept, {} endpoints", endpoints.len()),
            false,
            with_clients,
            |s, o, e| unsafe { keepsock_server_accept(s.0.0, o.at(0), e) },
            |_, o| unsafe { keepsock_client_free(o.handle()) },
        );
        macro_rules! on_server {
            ($($function:ident ($p:ident, $o:ident) ($($argument:expr),*);)*) => {$(
                m.each(
                    &format!("{}, {} endpoints", stringify!($function), endpoints.len()),
                    false,
                    |_| server(endpoints),
                    |s, $o, e| unsafe {
                        let $p = s.0;
                        $function($($argument,)* e)
                    },
                    nothing,
                );
            )*};
        }
        on_server! {
            keepsock_server_endpoint(p, o) (p, 0, o.at(8), 1024, o.at(0));
            keepsock_server_get_stats(p, o) (p, o.at(0), size_of::<keepsock_server_stats>());
            keepsock_server_fd(p, o) (p, 0, o.at(0));
            keepsock_server_set_accept_timeout(p, _o) (p, 500);
            keepsock_server_set_nonblocking(p, _o) (p, true);
            keepsock_server_set_cancel(p, _o) (p, null());
        }
    }
}

unsafe extern "C" fn echo(client: *mut keepsock_client, _: *mut c_void) {
    let (mut buf, mut len) = ([0u8; 64], 0);
    let data = buf.as_mut_ptr().cast::<c_void>();
    unsafe {
        while keepsock_client_read(client, data, 64, &raw mut len, null_mut()) == 0
            && len > 0
            && keepsock_client_write_all(client, data, len, null_mut()) == 0
        {}
    }
}

unsafe extern "C" fn echo_events(
    conn: keepsock_conn,
    data: *const c_void,
    len: usize,
    _: *mut c_void,
) {
    unsafe { keepsock_conn_send(conn, data, len, null_mut()) };
}

unsafe extern "C" fn echo_datagram(
    datagram: *mut keepsock_datagram,
    info: *const keepsock_datagram_info,
    data: *const c_void,
    len: usize,
    _: *mut c_void,
) {
    unsafe { keepsock_datagram_reply(datagram, info, data, len, null_mut()) };
}

type Service = Handle<keepsock_service>;

fn serve(server: &Server, events: bool, out: *mut *mut keepsock_service, e: Error) -> i32 {
    let mut callbacks: keepsock_callbacks = unsafe { std::mem::zeroed() };
    callbacks.size = size_of_val(&callbacks);
    callbacks.on_data = Some(echo_events);
    let callbacks = &raw const callbacks;
    unsafe {
        if events {
            keepsock_server_serve_events(server.0, null(), callbacks, null_mut(), out, e)
        } else {
            keepsock_server_serve(server.0, null(), Some(echo), null_mut(), out, e)
        }
    }
}

/// A2, S1: services. A fault of one connection does not end the service.
#[test]
fn service_calls_with_faults_return_listed_statuses() {
    with_machine("service_calls_with_faults_return_listed_statuses", service_calls);
}

fn service_calls(m: &mut Machine) {
    for events in [false, true] {
        let name = if events { "keepsock_server_serve_events" } else { "keepsock_server_serve" };
        m.each(
            name,
            false,
            |_| server(&[ANY_PORT]),
            |s, o, e| serve(s, events, o.at(0), e),
            |_, o| unsafe { keepsock_service_free(o.handle()) },
        );
        let serving = |m: &Machine| -> (Service, Server) {
            let options = options();
            if !events {
                // Each accepted connection needs its own timeouts (SO_RCVTIMEO, SO_SNDTIMEO).
                unsafe {
                    ok(keepsock_options_set_read_timeout(options.0, 900, null_mut()));
                    ok(keepsock_options_set_write_timeout(options.0, 900, null_mut()));
                }
            }
            let server = server_with(&[ANY_PORT], options.0);
            let service = m.filtered(|| {
                made(keepsock_service_free, |out| serve(&server, events, out, null_mut()))
            });
            (service, server)
        };
        m.each(
            &format!("{name}, one client"),
            true,
            serving,
            |s, _, _| {
                let mut client = raw_client(&s.1);
                let mut answer = [0; 4];
                let sent = client.write_all(b"ping");
                let is_echo = sent.is_ok() && client.read_exact(&mut answer).is_ok();
                drop(client);
                let lives = unsafe { keepsock_service_wait_stopped(s.0.0, 0, null_mut()) };
                let ended = if lives == ErrorKind::TimedOut.code() { 0 } else { 1 };
                if is_echo { ended } else { LOST }
            },
            nothing,
        );
        macro_rules! on_service {
            ($($function:ident ($p:ident, $o:ident) ($($argument:expr),*);)*) => {$(
                m.each(
                    &format!("{}, events {events}", stringify!($function)),
                    false,
                    serving,
                    |s, $o, e| unsafe {
                        let $p = s.0.0;
                        $function($($argument,)* e)
                    },
                    nothing,
                );
            )*};
        }
        on_service! {
            keepsock_service_stop(p, _o) (p);
            keepsock_service_drain(p, o) (p, 500, o.at(0), o.at(1));
            keepsock_service_get_stats(p, o) (p, o.at(0), size_of::<keepsock_service_stats>());
        }
        for wait in [keepsock_service_wait_stopped, keepsock_service_wait] {
            m.each(
                &format!("keepsock_service_wait, events {events}"),
                false,
                serving,
                |s, _, e| unsafe {
                    keepsock_service_stop(s.0.0, null_mut());
                    wait(s.0.0, 500, e)
                },
                nothing,
            );
        }
        if events {
            let target = raw_endpoint();
            on_service! {
                keepsock_service_connect(p, _o) (p, target.as_ptr(), null(), null_mut());
                keepsock_service_dump(p, o) (p, o.at(8), 2000, o.at(0));
                keepsock_service_broadcast(p, o)
                    (p, null(), b"abc".as_ptr().cast(), 3, o.at(0), o.at(1), o.at(2), o.at(3));
            }
            let again = || {
                made(keepsock_reconnect_free, |out| unsafe {
                    keepsock_reconnect_new(target.as_ptr(), null(), out, null_mut())
                })
            };
            m.each(
                "keepsock_service_reconnect",
                false,
                |m| (serving(m), m.filtered(again)),
                |s, _, e| unsafe {
                    let mut again = s.1.0;
                    keepsock_service_reconnect(s.0.0.0, &raw mut again, null_mut(), e)
                },
                nothing,
            );
            m.each(
                "keepsock_service_add",
                false,
                |m| (serving(m), connection(Kind::Plain)),
                |s, _, e| unsafe {
                    keepsock_service_add(s.0.0.0, s.1.client.0, null_mut(), null_mut(), e)
                },
                nothing,
            );
            drain();
        }
    }
}

type Socket = Handle<keepsock_datagram>;

fn socket_at(endpoint: &CStr) -> Socket {
    let socket = made(keepsock_datagram_free, |out| unsafe {
        keepsock_datagram_bind(endpoint.as_ptr(), null(), out, null_mut())
    });
    unsafe { ok(keepsock_datagram_set_read_timeout(socket.0, 250, null_mut())) };
    unsafe { ok(keepsock_datagram_set_write_timeout(socket.0, 250, null_mut())) };
    socket
}

/// Two connected sockets, of which the second has sent to the first, and the address of the first.
struct Datagrams {
    socket: Socket,
    peer: Socket,
    connected: Socket,
    info: keepsock_datagram_info,
    endpoint: CString,
    buf: *mut c_void,
}

fn datagrams(endpoint: &CStr, own: &CStr) -> Datagrams {
    let (socket, e) = (socket_at(endpoint), null_mut());
    let mut name = [0; KEEPSOCK_TEXT_SIZE as usize];
    let (at, cap) = (name.as_mut_ptr(), name.len());
    unsafe { ok(keepsock_datagram_endpoint(socket.0, at, cap, null_mut(), e)) };
    let name = unsafe { CStr::from_ptr(at) }.to_owned();
    let peer = socket_at(own);
    let buf = *BUFFER as *mut c_void;
    let mut info: keepsock_datagram_info = unsafe { std::mem::zeroed() };
    unsafe {
        for _ in 0..5 {
            ok(keepsock_datagram_send_to(peer.0, name.as_ptr(), buf, 8, e));
        }
        ok(keepsock_datagram_recv(socket.0, buf, 64, &raw mut info, size_of_val(&info), e));
    }
    let connected = made(keepsock_datagram_free, |out| unsafe {
        keepsock_datagram_connect(name.as_ptr(), null(), out, e)
    });
    Datagrams { socket, peer, connected, info, endpoint: name, buf }
}

/// A2: calls on datagram sockets.
#[test]
fn datagram_calls_with_faults_return_listed_statuses() {
    with_machine("datagram_calls_with_faults_return_listed_statuses", |m| {
        let dir = TempDir::new();
        datagram_calls(m, "UDP", ANY_PORT, ANY_PORT);
        let (one, other) = (c(&dir.endpoint("a")), c(&dir.endpoint("b")));
        datagram_calls(m, "Unix", &one, &other);
    });
}

fn datagram_calls(m: &mut Machine, kind: &str, endpoint: &CStr, own: &CStr) {
    let free = |out: &Out| unsafe { keepsock_datagram_free(out.handle()) };
    m.each(
        &format!("keepsock_datagram_bind, {kind}"),
        false,
        |_| options(),
        |s, o, e| unsafe { keepsock_datagram_bind(endpoint.as_ptr(), s.0, o.at(0), e) },
        |_, o| free(o),
    );
    m.each(
        &format!("keepsock_datagram_connect, {kind}"),
        false,
        |_| datagrams(endpoint, own),
        |s, o, e| unsafe { keepsock_datagram_connect(s.endpoint.as_ptr(), null(), o.at(0), e) },
        |_, o| free(o),
    );
    let size = size_of::<keepsock_datagram_info>();
    macro_rules! on_socket {
        ($($function:ident ($s:ident, $p:ident, $o:ident) ($($argument:expr),*);)*) => {$(
            m.each(
                &format!("{}, {kind}", stringify!($function)),
                false,
                |_| datagrams(endpoint, own),
                |$s, $o, e| unsafe {
                    let $p = $s.socket.0;
                    $function($($argument,)* e)
                },
                nothing,
            );
        )*};
    }
    on_socket! {
        keepsock_datagram_recv(s, p, o) (p, s.buf, 64, o.at(0), size);
        keepsock_datagram_recv_batch(s, p, o)
            (p, s.incoming().as_mut_ptr(), 2, size_of::<keepsock_recv_item>(), o.at(0));
        keepsock_datagram_send_batch(s, _p, o)
            (s.peer.0, s.outgoing().as_ptr(), 3, size_of::<keepsock_send_item>(), o.at(0));
        keepsock_datagram_reply(s, p, _o) (p, &s.info, s.buf, 8);
        keepsock_datagram_peek(s, p, o) (p, s.buf, 64, o.at(0), size);
        keepsock_datagram_send(s, _p, _o) (s.connected.0, s.buf, 8);
        keepsock_datagram_send_to(s, _p, _o) (s.peer.0, s.endpoint.as_ptr(), s.buf, 8);
        keepsock_datagram_close(_s, p, _o) (p);
        keepsock_datagram_set_read_timeout(_s, p, _o) (p, 500);
        keepsock_datagram_set_write_timeout(_s, p, _o) (p, 500);
        keepsock_datagram_set_nonblocking(_s, p, _o) (p, true);
        keepsock_datagram_set_cancel(_s, p, _o) (p, null());
        keepsock_datagram_set_recv_metadata(_s, p, _o) (p, true);
        keepsock_datagram_set_sockopt(_s, p, _o) (p, 1, 9000);
        keepsock_datagram_sockopt(_s, p, o) (p, 1, o.at(0));
        keepsock_datagram_get_stats(_s, p, o) (p, o.at(0), size_of::<keepsock_datagram_stats>());
        keepsock_datagram_five_tuple(_s, p, o) (p, o.at(0), size_of::<keepsock_five_tuple>());
        keepsock_datagram_fd(_s, p, o) (p, o.at(0));
    }
    m.each(
        &format!("keepsock_datagram_from_fd, {kind}"),
        false,
        |_| (options(), UdpSocket::bind("127.0.0.1:0").unwrap()),
        |s, o, e| from_fd(&s.1, |fd| unsafe { keepsock_datagram_from_fd(fd, s.0.0, o.at(0), e) }),
        |_, o| free(o),
    );
    m.each(
        &format!("keepsock_datagram_release_fd, {kind}"),
        false,
        |_| datagrams(endpoint, own),
        |s, o, e| unsafe { keepsock_datagram_release_fd(s.socket.0, o.at(0), e) },
        |_, o| drop(unsafe { OwnedFd::from_raw_fd(o.0[0] as i32) }),
    );
    if kind == "Unix" {
        on_socket! {
            keepsock_datagram_send_fds(s, _p, _o)
                (s.peer.0, s.endpoint.as_ptr(), s.buf, 8, &0, 1);
            keepsock_datagram_recv_fds(s, p, o)
                (p, s.buf, 64, o.at(0), 4, o.at(8), size, o.at(4), o.at(5));
        }
    } else {
        let mut group: keepsock_address = unsafe { std::mem::zeroed() };
        unsafe {
            let text = c"239.1.2.3:0".as_ptr();
            ok(keepsock_address_parse(text, &raw mut group, null_mut()));
        }
        on_socket! {
            keepsock_datagram_set_broadcast(_s, p, _o) (p, true);
            keepsock_datagram_join_multicast(_s, p, _o) (p, &group, c"lo".as_ptr(), null());
            keepsock_datagram_set_multicast_loop(_s, p, _o) (p, true);
            keepsock_datagram_set_multicast_ttl(_s, p, _o) (p, 2);
            keepsock_datagram_set_multicast_interface(_s, p, _o) (p, c"lo".as_ptr());
            keepsock_datagram_set_ttl(_s, p, _o) (p, 9);
            keepsock_datagram_set_tos(_s, p, _o) (p, 0);
            keepsock_datagram_set_dont_fragment(_s, p, _o) (p, true);
            keepsock_datagram_set_recv_errors(_s, p, _o) (p, true);
            keepsock_datagram_set_fail_on_refused(s, _p, _o) (s.connected.0, true);
            keepsock_datagram_set_peer(s, _p, _o) (s.peer.0, &s.info.from);
        }
    }
    m.each(
        &format!("keepsock_datagram_serve, {kind}"),
        false,
        |_| socket_at(endpoint),
        |s, o, e| unsafe {
            keepsock_datagram_serve(s.0, null(), Some(echo_datagram), null_mut(), o.at(0), e)
        },
        |_, o| unsafe { keepsock_datagram_service_free(o.handle()) },
    );
    m.each(
        &format!("keepsock_datagram_service_add, {kind}"),
        false,
        |_| {
            let first = socket_at(ANY_PORT);
            let service = made(keepsock_datagram_service_free, |out| unsafe {
                let echo = Some(echo_datagram as _);
                keepsock_datagram_serve(first.0, null(), echo, null_mut(), out, null_mut())
            });
            (service, first, socket_at(endpoint))
        },
        |(service, _, added), _, e| unsafe { keepsock_datagram_service_add(service.0, added.0, e) },
        nothing,
    );
    m.each(
        &format!("keepsock_datagram_serve, {kind}, one client"),
        true,
        |m| {
            let (s, e) = (datagrams(endpoint, own), null_mut());
            let (socket, echo) = (s.socket.0, Some(echo_datagram as _));
            let service = m.filtered(|| {
                made(keepsock_datagram_service_free, |out| unsafe {
                    keepsock_datagram_serve(socket, null(), echo, null_mut(), out, e)
                })
            });
            (service, s)
        },
        |(service, s), _, _| unsafe {
            let (peer, e) = (s.peer.0, null_mut());
            ok(keepsock_datagram_send_to(peer, s.endpoint.as_ptr(), s.buf, 8, e));
            let mut info: keepsock_datagram_info = std::mem::zeroed();
            let answer = keepsock_datagram_recv(peer, s.buf, 64, &raw mut info, size, e);
            let lives = keepsock_datagram_service_wait(service.0, 0, e);
            let ended = if lives == ErrorKind::TimedOut.code() { 0 } else { 1 };
            if answer == 0 { ended } else { LOST }
        },
        nothing,
    );
}

impl Datagrams {
    fn incoming(&self) -> [keepsock_recv_item; 2] {
        let mut one: keepsock_recv_item = unsafe { std::mem::zeroed() };
        (one.buf, one.cap) = (self.buf, 64);
        [one; 2]
    }

    fn outgoing(&self) -> [keepsock_send_item; 3] {
        let mut one: keepsock_send_item = unsafe { std::mem::zeroed() };
        (one.buf, one.len, one.reply_to) = (self.buf, 8, &raw const self.info);
        [one; 3]
    }
}
