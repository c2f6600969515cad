//! C1, K5: changes of the wall clock. The clock of this program jumps by days while calls wait.
//!
//! The functions that read the clock are replaced. The clocks by which the kernel waits are in exec.rs.

#![allow(unsafe_code)] // clock_gettime(2)

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use crate::support::{
    Api, Client, Connection, Datagrams, FullQueue, On, OnDrop, Opt, Reconnect, Server, Service,
    Transport, fails, pair_with,
};
use keepsock::{CloseReason, ErrorKind};

both_apis_alone![
    timeouts_during_jumps_of_the_wall_clock_are_exact,
    connections_outlive_jumps_of_the_wall_clock,
];

/// Seconds by which the wall clock of this program is wrong.
static WRONG_BY: AtomicI64 = AtomicI64::new(0);

/// Replaces libc's function: the linker uses a program's own symbol first.
///
/// # Safety
/// As clock_gettime(2).
#[unsafe(no_mangle)]
unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, time: *mut libc::timespec) -> i32 {
    type Function = unsafe extern "C" fn(libc::clockid_t, *mut libc::timespec) -> i32;
    static LIBC: OnceLock<Function> = OnceLock::new();
    // SAFETY: the function of libc has this type. The caller passes a timespec.
    unsafe {
        let function = LIBC.get_or_init(|| {
            let found = libc::dlsym(libc::RTLD_NEXT, c"clock_gettime".as_ptr());
            assert!(!found.is_null());
            std::mem::transmute::<*mut libc::c_void, Function>(found)
        });
        let result = function(clock, time);
        if result == 0 && [libc::CLOCK_REALTIME, libc::CLOCK_REALTIME_COARSE].contains(&clock) {
            (*time).tv_sec += WRONG_BY.load(Ordering::Relaxed) as libc::time_t;
        }
        result
    }
}

/// Lets the wall clock jump by ten days, forward and back, while `f` runs.
fn with_jumps(f: impl FnOnce()) {
    const JUMP: i64 = 10 * 86_400;
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for by in [JUMP, 0, -JUMP, 0].into_iter().cycle() {
                WRONG_BY.store(by, Ordering::Relaxed);
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                thread::sleep(Duration::from_millis(7));
            }
        });
        let _stop = OnDrop(|| stop.store(true, Ordering::Relaxed));
        let (mut last, until) = (SystemTime::now(), Instant::now() + Duration::from_secs(30));
        let mut jumped = || {
            let before = std::mem::replace(&mut last, SystemTime::now());
            last.duration_since(before).is_err()
        };
        while !jumped() {
            assert!(Instant::now() < until, "the clock of this program does not jump");
        }
        f();
    });
}

/// The least and the longest time of a wait with a timeout of [`TIMEOUT`].
const TIMEOUT: i64 = 300;
const LONGEST: Duration = Duration::from_secs(20);

#[track_caller]
fn in_time<T>(what: &str, f: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let value = f();
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(TIMEOUT as u64 - 5), "{what}: only {took:?}");
    assert!(took < LONGEST, "{what}: {took:?}");
    value
}

/// C1, I1: each timeout expires at its time.
fn timeouts_during_jumps_of_the_wall_clock_are_exact<A: Api>() {
    let token = A::token();
    let p = pair_with::<A>(Transport::Tcp, &[Opt::CloseTimeout(0), Opt::ReadTimeout(TIMEOUT)]);
    let q = pair_with::<A>(
        Transport::Tcp,
        &[Opt::CloseTimeout(0), Opt::ReadTimeout(TIMEOUT), Opt::Cancel(&token)],
    );
    let socket = A::Datagram::bind("127.0.0.1:0", &[Opt::ReadTimeout(TIMEOUT)]).unwrap();
    let queue = FullQueue::new();
    p.server.set_accept_timeout(TIMEOUT).unwrap();
    with_jumps(|| {
        let timed_out = ErrorKind::TimedOut;
        for client in [&p.client, &q.client] {
            in_time("read", || fails(client.read(&mut [0; 8]), timed_out));
            in_time("read_line", || fails(client.read_line(8), timed_out));
        }
        in_time("wait_hangup", || fails(p.client.wait_hangup(TIMEOUT), timed_out));
        in_time("accept", || fails(p.server.accept(), timed_out));
        in_time("recv", || fails(socket.recv(8), timed_out));
        let options = [Opt::ConnectTimeout(TIMEOUT)];
        in_time("connect", || fails(A::connect(&queue.endpoint(), &options), timed_out));
        let mut reconnect = A::reconnect(&queue.endpoint(), &[]).unwrap();
        reconnect.set_limit(TIMEOUT).unwrap();
        in_time("reconnect", || fails(reconnect.connect(), timed_out));
    });
}

/// K5, K6, V2, V5, V10: the timers of a service run, answering peers stay connected, and a drain has its
/// whole time.
fn connections_outlive_jumps_of_the_wall_clock<A: Api>() {
    let options = [
        Opt::Heartbeat(b"?", 50),
        Opt::HeartbeatTimeout(20_000),
        Opt::IdleTimeout(20_000),
        Opt::FirstByteTimeout(20_000),
        Opt::DeadAfter(20_000),
        Opt::CloseTimeout(20_000),
    ];
    let server = A::listen("127.0.0.1:0", &options).unwrap();
    let (closed, reasons) = channel();
    let (fired, timers) = channel();
    let closed = std::sync::Mutex::new(closed);
    let on = On::<A> {
        open: Some(Box::new(|c| c.set_timer(TIMEOUT).unwrap())),
        timer: Some({
            let fired = std::sync::Mutex::new(fired.clone());
            Box::new(move |_| fired.lock().unwrap().send("connection").unwrap())
        }),
        close: Some(Box::new(move |_, reason| closed.lock().unwrap().send(reason).unwrap())),
        ..On::default()
    };
    let service = server.serve_events(&[], on).unwrap();
    let peer = TcpStream::connect(server.endpoint()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap().to_string();
    let client = A::connect(&to, &options).unwrap();
    let (other, _) = listener.accept().unwrap();
    with_jumps(|| {
        let added = Instant::now();
        let fired = fired.clone();
        let function = Box::new(move |_| fired.send("service").unwrap());
        service.add_timer(TIMEOUT, 0, function).unwrap();
        thread::scope(|scope| {
            // Each reads fifty heartbeats, and answers them.
            let read = scope.spawn(|| client.read_exact(&mut [0; 50]));
            for mut peer in [&peer, &other] {
                peer.set_read_timeout(Some(LONGEST)).unwrap();
                scope.spawn(move || {
                    for _ in 0..50 {
                        peer.read_exact(&mut [0]).unwrap();
                        peer.write_all(b"!").unwrap();
                    }
                });
            }
            let mut names = [timers.recv_timeout(LONGEST), timers.recv_timeout(LONGEST)];
            names.sort_by_key(|name| name.unwrap());
            assert_eq!(names, [Ok("connection"), Ok("service")]);
            assert!(added.elapsed() < LONGEST);
            read.join().unwrap().unwrap();
        });
        assert!(reasons.try_recv().is_err(), "a connection was ended");
        assert_eq!(client.close_reason(), None);
        // The peer does not close, so the drain lasts as long as it may.
        in_time("drain", || service.drain(TIMEOUT).unwrap());
        assert_eq!(reasons.recv_timeout(LONGEST).unwrap(), CloseReason::Local);
    });
}
