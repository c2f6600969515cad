//! std_connect PORT CONNECTIONS MESSAGES READ_TIMEOUT_MS - Rust's standard library
//!
//! The standard library makes a socket and connects it in one, and has no keepalive: the
//! options are set by hand, after connecting.

use std::ffi::{c_int, c_uint, c_void};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
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
}

fn set(stream: &TcpStream, level: c_int, option: c_int, value: c_int) {
    // SAFETY: the descriptor is open, and the value is an int of the given length.
    let status =
        unsafe { setsockopt(stream.as_raw_fd(), level, option, (&raw const value).cast(), 4) };
    assert_eq!(status, 0, "setsockopt");
}

fn main() {
    let numbers: Vec<u64> =
        std::env::args().skip(1).map(|word| word.parse().expect("a number")).collect();
    let [port, connections, messages, timeout] = numbers[..] else {
        panic!("usage: std_connect PORT CONNECTIONS MESSAGES READ_TIMEOUT_MS")
    };
    // SAFETY: no handler is installed; the signal ends a run that hangs.
    unsafe { alarm(60) };

    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, port as u16));
    let mut buf = [b'k'; 64];
    for _ in 0..connections {
        let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(5)).expect("connect");
        // Linux: SOL_SOCKET SO_KEEPALIVE; IPPROTO_TCP KEEPIDLE, KEEPINTVL, KEEPCNT.
        for (level, option, value) in [(1, 9, 1), (6, 4, 45), (6, 5, 15), (6, 6, 5)] {
            set(&stream, level, option, value);
        }
        stream.set_nodelay(true).expect("nodelay");
        if timeout > 0 {
            stream.set_read_timeout(Some(Duration::from_millis(timeout))).expect("timeout");
        }
        for _ in 0..messages {
            stream.write_all(&buf).expect("write");
            stream.read_exact(&mut buf).expect("read");
        }
    }
}
