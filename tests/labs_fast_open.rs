//! TCP Fast Open (RFC 7413), which the system must allow.

#![cfg(target_os = "linux")]
// Clippy's leave for tests is for test functions, not for what they call.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(unsafe_code)] // TCP_INFO

use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use keepsock::{ClientSocket, ErrorKind, ServerSocket, SocketOptions, TcpState};

mod lab;
use lab::{in_namespace, ip, row, sysctl};

const LIMIT: Duration = Duration::from_secs(20);

/// Whether data came with the SYN, as the server's kernel knows: TCPI_OPT_SYN_DATA of
/// tcpi_options, the sixth byte of TCP_INFO.
fn data_with_syn(accepted: &ClientSocket) -> bool {
    let borrowed = accepted.borrow().unwrap();
    let (mut head, mut len) = ([0u8; 8], 8 as libc::socklen_t);
    // SAFETY: the kernel writes at most `len` bytes into head.
    let code = unsafe {
        let fd = borrowed.as_fd().as_raw_fd();
        let out = head.as_mut_ptr().cast();
        libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, out, &raw mut len)
    };
    assert_eq!(code, 0);
    head[5] & 32 != 0
}

/// The first connection brings a cookie, the second one data with its SYN. The control: without
/// the option it does not, cookie or not.
#[test]
fn the_second_connection_saves_a_round_trip() {
    in_namespace("the_second_connection_saves_a_round_trip", LIMIT, || {
        sysctl("net.ipv4.tcp_fastopen", "3");
        let options = SocketOptions::new().fast_open(true).close_timeout(Duration::ZERO);
        let server = ServerSocket::listen_with("127.0.0.1:0", &options).unwrap();
        let connect = |options: &SocketOptions| {
            let client = ClientSocket::connect_with(server.endpoint(), options).unwrap();
            let before = client.state().unwrap();
            client.write_all(b"question\n").unwrap();
            let accepted = server.accept().unwrap();
            assert_eq!(accepted.read_line(100).unwrap(), "question");
            accepted.write_all(b"answer\n").unwrap();
            assert_eq!(client.read_line(100).unwrap(), "answer");
            (before, data_with_syn(&accepted))
        };
        assert_eq!(connect(&options), (TcpState::Established, false), "asks for a cookie");
        assert_eq!(connect(&options), (TcpState::SynSent, true), "waits for the first write");
        let plain = SocketOptions::new().close_timeout(Duration::ZERO);
        assert_eq!(connect(&plain), (TcpState::Established, false), "the control");
        row("C5 second connection", "fast_open", "data with the SYN", "without: none");
    });
}

/// C2, C4: the failure of a handshake that comes with the first write is told there, as what it
/// is, or by a deadline. Where there is a choice, addresses race.
#[test]
fn the_handshake_may_fail_in_the_first_write() {
    in_namespace("the_handshake_may_fail_in_the_first_write", LIMIT, || {
        sysctl("net.ipv4.tcp_fastopen", "3");
        let options = SocketOptions::new()
            .fast_open(true)
            .write_timeout(Duration::from_millis(300))
            .close_timeout(Duration::ZERO);
        let server = ServerSocket::listen_with("127.0.0.1:0", &options).unwrap();
        let endpoint = server.endpoint().clone();
        drop(ClientSocket::connect_with(&endpoint, &options).unwrap());
        // Where it has a choice it does not take a cookie for an answer.
        let address = endpoint.to_string().parse().unwrap();
        let two = options.clone().address(address).address(address);
        let client = ClientSocket::connect_with(&endpoint, &two).unwrap();
        assert_eq!(client.state().unwrap(), TcpState::Established);
        drop(client);
        // Nobody listens any more.
        server.close();
        let client = ClientSocket::connect_with(&endpoint, &options).unwrap();
        assert_eq!(client.write_all(b"x").unwrap_err().kind(), ErrorKind::Refused);
        // Nobody answers any more: the kernel has the bytes, and goes on trying.
        let client = ClientSocket::connect_with(&endpoint, &options).unwrap();
        ip("link set lo down");
        client.write_all(b"x").unwrap();
        assert_eq!(client.state().unwrap(), TcpState::SynSent);
        client.set_read_timeout(Duration::from_millis(300)).unwrap();
        assert_eq!(client.read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::TimedOut);
    });
}
