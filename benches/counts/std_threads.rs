//! std_threads CONNECTIONS READ_TIMEOUT_MS - Rust's standard library: a thread for each connection
//!
//! The standard library has no keepalive. It is set on the listener by hand, as the
//! plain C servers do, so that all peers do the same work.

use std::ffi::{c_int, c_uint, c_void};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

unsafe extern "C" {
    fn setsockopt(
        fd: c_int,
        level: c_int,
        option: c_int,
        value: *const c_void,
        length: c_uint,
    ) -> c_int;
    fn alarm(seconds: c_uint) -> c_uint;
    fn prctl(option: c_int, ...) -> c_int;
}

fn set(listener: &TcpListener, level: c_int, option: c_int, value: c_int) {
    // SAFETY: the descriptor is open, and the value is an int of the given length.
    let status =
        unsafe { setsockopt(listener.as_raw_fd(), level, option, (&raw const value).cast(), 4) };
    assert_eq!(status, 0, "setsockopt");
}

fn echo_until_end(mut stream: TcpStream) {
    let mut buf = [0; 256];
    loop {
        let got = stream.read(&mut buf).expect("read");
        if got == 0 {
            return;
        }
        stream.write_all(&buf[..got]).expect("write");
    }
}

fn main() {
    let numbers: Vec<u64> =
        std::env::args().skip(1).map(|word| word.parse().expect("a number")).collect();
    let [connections, timeout] = numbers[..] else {
        panic!("usage: std_threads CONNECTIONS READ_TIMEOUT_MS")
    };
    // SAFETY: no handler is installed; the signal ends a run that hangs.
    unsafe { alarm(120) };
    // Huge pages would show memory in steps of 2 MiB.
    // SAFETY: PR_SET_THP_DISABLE takes four numbers.
    assert_eq!(unsafe { prctl(41, 1_usize, 0_usize, 0_usize, 0_usize) }, 0, "prctl");

    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    // Linux: SOL_SOCKET SO_KEEPALIVE; IPPROTO_TCP KEEPIDLE, KEEPINTVL, KEEPCNT, NODELAY.
    for (level, option, value) in [(1, 9, 1), (6, 4, 45), (6, 5, 15), (6, 6, 5), (6, 1, 1)] {
        set(&listener, level, option, value);
    }
    println!("port {}", listener.local_addr().expect("address").port());

    let (done, all_done) = mpsc::channel();
    for _ in 0..connections {
        let (stream, _) = listener.accept().expect("accept");
        if timeout > 0 {
            stream.set_read_timeout(Some(Duration::from_millis(timeout))).expect("timeout");
        }
        let done = done.clone();
        thread::spawn(move || {
            echo_until_end(stream);
            // Dropping the last sender ends the wait below.
            drop(done);
        });
    }
    drop(done);
    let _: Result<(), _> = all_done.recv();
}
