//! TCP Fast Open (RFC 7413), which the system must permit.

#![allow(unsafe_code)] // TCP_INFO

use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use keepsock::{ClientSocket, ErrorKind, ServerSocket, SocketOptions, TcpState};

use crate::support::netns::{in_namespace, ip, row, sysctl};

const LIMIT: Duration = Duration::from_secs(20);

/// Whether the SYN carried data, as the server's kernel reports it: TCPI_OPT_SYN_DATA of
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

/// C5: the first connection gets a cookie, and the second one sends data with its SYN. The control
/// case without the option sends none, with or without a cookie.
#[test]
fn fast_open_on_second_connection_sends_data_with_syn() {
    in_namespace(&test_name!("fast_open_on_second_connection_sends_data_with_syn"), LIMIT, || {
        sysctl("net.ipv4.tcp_fastopen", "3");
        let options = SocketOptions::new().fast_open(true).close_timeout(Duration::ZERO);
        let server = ServerSocket::listen_with("127.0.0.1:0", &options).unwrap();
        let connect = |options: &SocketOptions| {
            let client = ClientSocket::connect_with(server.endpoint(), options).unwrap();
            let before = client.stats().unwrap().tcp_state.unwrap();
            client.write_all(b"question\n").unwrap();
            let accepted = server.accept().unwrap();
            assert_eq!(accepted.read_line(100).unwrap(), "question");
            accepted.write_all(b"answer\n").unwrap();
            assert_eq!(client.read_line(100).unwrap(), "answer");
            (before, data_with_syn(&accepted))
        };
        assert_eq!(connect(&options), (TcpState::Established, false), "requests a cookie");
        assert_eq!(connect(&options), (TcpState::SynSent, true), "waits for the first write");
        let plain = SocketOptions::new().close_timeout(Duration::ZERO);
        assert_eq!(connect(&plain), (TcpState::Established, false), "the control");
        row("C5 second connection", "fast_open", "data with the SYN", "without: none");
    });
}

/// C2, C4: the failure of a handshake during the first write is reported by that write with its
/// cause, or at the deadline. With several addresses, the attempts race instead.
#[test]
fn fast_open_reports_handshake_failure_in_first_write() {
    in_namespace(&test_name!("fast_open_reports_handshake_failure_in_first_write"), LIMIT, || {
        sysctl("net.ipv4.tcp_fastopen", "3");
        let options = SocketOptions::new()
            .fast_open(true)
            .write_timeout(Duration::from_millis(300))
            .close_timeout(Duration::ZERO);
        let server = ServerSocket::listen_with("127.0.0.1:0", &options).unwrap();
        let endpoint = server.endpoint().clone();
        drop(ClientSocket::connect_with(&endpoint, &options).unwrap());
        // With several addresses the cookie is not used.
        let address = endpoint.to_string().parse().unwrap();
        let two = options.clone().remote_address(address).remote_address(address);
        let client = ClientSocket::connect_with(&endpoint, &two).unwrap();
        assert_eq!(client.stats().unwrap().tcp_state.unwrap(), TcpState::Established);
        drop(client);
        // No process listens.
        server.close();
        let client = ClientSocket::connect_with(&endpoint, &options).unwrap();
        assert_eq!(client.write_all(b"x").unwrap_err().kind(), ErrorKind::Refused);
        // No host replies: the kernel has the bytes, and keeps trying.
        let client = ClientSocket::connect_with(&endpoint, &options).unwrap();
        ip("link set lo down");
        client.write_all(b"x").unwrap();
        assert_eq!(client.stats().unwrap().tcp_state.unwrap(), TcpState::SynSent);
        client.set_read_timeout(Duration::from_millis(300)).unwrap();
        assert_eq!(client.read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::TimedOut);
    });
}
