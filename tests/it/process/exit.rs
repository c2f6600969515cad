//! The end of a process whose threads use the library.

#![allow(unsafe_code)] // atexit(3), quick_exit(3), _exit(2)

use std::io::Read;
use std::net::TcpListener;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use super::everything::Everything;
use crate::support::handshake::Handshakes;
use crate::support::process::{self, Helper, report};
use crate::support::{Client, Connection, INFINITE, On, Opt, Server, Service, bytes, eventually};

both_apis_alone![
    exit_while_everything_runs_succeeds,
    exit_in_a_callback_succeeds,
    data_before_exit_reaches_the_peer,
];

unsafe extern "C" {
    fn atexit(function: extern "C" fn()) -> libc::c_int;
    fn quick_exit(status: libc::c_int) -> !;
    fn at_quick_exit(function: extern "C" fn()) -> libc::c_int;
}

/// Runs at the end of the process.
static AT_EXIT: Mutex<Option<Box<dyn FnOnce() + Send>>> = Mutex::new(None);

extern "C" fn at_exit() {
    if let Some(function) = AT_EXIT.lock().unwrap().take() {
        function();
    }
}

/// The status of a process that ends as it should.
const STATUS: i32 = 17;

fn end(way: &str) -> ! {
    // SAFETY: no memory is passed.
    unsafe {
        match way {
            "exit" => libc::exit(STATUS),
            "_exit" => libc::_exit(STATUS),
            "quick_exit" => quick_exit(STATUS),
            way => panic!("{way}"),
        }
    }
}

struct AssertSend<T>(T);

// SAFETY: the thread that ends the process is the only one that uses it.
unsafe impl<T> Send for AssertSend<T> {}

impl<T> AssertSend<T> {
    fn get(&self) -> &T {
        &self.0
    }
}

/// V2, T3: a process ends in each way while event loops, workers, the background closer, resolver threads
/// and waiting calls run. Functions of atexit(3) may use and free the objects.
fn exit_while_everything_runs_succeeds<A: Handshakes>() {
    if let Some(role) = process::role() {
        let (way, last) = role.split_once(' ').unwrap();
        let all = AssertSend(Everything::<A>::new());
        // SAFETY: the function is static.
        unsafe { assert_eq!((atexit(at_exit), at_quick_exit(at_exit)), (0, 0)) };
        let last: Box<dyn FnOnce() + Send> = match last {
            "nothing" => Box::new(move || std::mem::forget(all)),
            "drain" => Box::new(move || {
                all.get().events.drain(0).unwrap();
                all.get().threads.drain(0).unwrap();
                std::mem::forget(all);
            }),
            "free" => Box::new(move || drop(all)),
            _ => Box::new(move || {
                let more = AssertSend(Everything::<A>::new());
                std::mem::forget((all, more));
            }),
        };
        *AT_EXIT.lock().unwrap() = Some(last);
        end(way);
    }
    let test = test_name!(A, "exit_while_everything_runs_succeeds");
    for way in ["exit", "_exit", "quick_exit"] {
        let each: &[&str] =
            if way == "_exit" { &["nothing"] } else { &["nothing", "drain", "free", "use"] };
        for last in each {
            let helper = Helper::start(&test, &format!("{way} {last}"));
            let status = helper.end();
            assert_eq!(status.code(), Some(STATUS), "{way}, {last}: {status}");
        }
    }
}

/// V7: a callback on a thread of the library may end the process.
fn exit_in_a_callback_succeeds<A: Handshakes>() {
    if let Some(role) = process::role() {
        let (way, mode) = role.split_once(' ').unwrap();
        let way = way.to_owned();
        let server = A::listen("127.0.0.1:0", &[]).unwrap();
        let _service = match mode {
            "events" => {
                let open = Box::new(move |_: &A::Connection| end(&way));
                server.serve_events(&[], On::<A> { open: Some(open), ..On::default() }).unwrap()
            }
            _ => server.serve(&[], Box::new(move |_| end(&way))).unwrap(),
        };
        let client = A::connect(&server.endpoint(), &[]).unwrap();
        drop(client.wait_hangup(INFINITE));
        panic!("the connection ended before the process");
    }
    let test = test_name!(A, "exit_in_a_callback_succeeds");
    for way in ["exit", "_exit", "quick_exit"] {
        for mode in ["events", "threads"] {
            let status = Helper::start(&test, &format!("{way} {mode}")).end();
            assert_eq!(status.code(), Some(STATUS), "{way}, {mode}: {status}");
        }
    }
}

/// I3: a process may exit after a free, a close, or a drain: the kernel sends the data.
fn data_before_exit_reaches_the_peer<A: Handshakes>() {
    const LEN: usize = 4 << 20;
    if let Some(role) = process::role() {
        let (way, endpoint) = role.split_once(' ').unwrap();
        let client = A::connect(endpoint, &[Opt::CloseTimeout(20_000)]).unwrap();
        match way {
            "free" => {
                client.write_all(&bytes(LEN)).unwrap();
                drop(client);
            }
            "exit" => {
                client.write_all(&bytes(LEN)).unwrap();
                std::mem::forget(client);
            }
            _ => {
                let server = A::listen("127.0.0.1:0", &[]).unwrap();
                static SENT: AtomicBool = AtomicBool::new(false);
                let open = |c: &A::Connection| {
                    c.send(&bytes(LEN)).unwrap();
                    SENT.store(true, Ordering::Release);
                };
                let on = On::<A> { open: Some(Box::new(open)), ..On::default() };
                let service = server.serve_events(&[], on).unwrap();
                assert!(service.add(client, 1).is_ok());
                eventually("the callback has queued its data", || SENT.load(Ordering::Acquire));
                assert_eq!(service.drain(60_000).unwrap(), (1, 0));
            }
        }
        report("done");
        end("exit");
    }
    let test = test_name!(A, "data_before_exit_reaches_the_peer");
    for way in ["free", "exit", "drain"] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = listener.local_addr().unwrap();
        let helper = Helper::start(&test, &format!("{way} {endpoint}"));
        let (mut peer, _) = listener.accept().unwrap();
        let mut all = Vec::new();
        peer.read_to_end(&mut all).unwrap();
        assert!(all == bytes(LEN), "{way}: {} bytes", all.len());
        assert_eq!(helper.next_line(), "done");
        assert_eq!(helper.end().code(), Some(STATUS));
    }
}
