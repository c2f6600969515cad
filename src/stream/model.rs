//! Models of the end of a connection: a terminal error against the end of the stream, and close
//! against calls in progress. The sockets are those of the kernel.

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use loom::thread::{self, JoinHandle};
use socket2::SockRef;

use super::ClientSocket;
use crate::options::SocketOptions;
use crate::sys::model::explore;
use crate::types::close_reason::CloseReason;
use crate::types::error::ErrorKind;

fn adopted(socket: impl Into<std::os::fd::OwnedFd>, blocking: bool) -> Arc<ClientSocket> {
    let client = ClientSocket::from_owned(socket.into(), &SocketOptions::new()).unwrap();
    client.set_nonblocking(!blocking).unwrap();
    Arc::new(client)
}

/// A TCP connection.
fn tcp_pair() -> (std::net::TcpStream, std::net::TcpStream) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mine = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (mine, listener.accept().unwrap().0)
}

/// A connection that was reset, so that the kernel reports an error to one call, and then the end of
/// the stream.
fn reset(inet: bool) -> Arc<ClientSocket> {
    if inet {
        let (mine, peer) = tcp_pair();
        SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
        return adopted(mine, false);
    }
    let (mine, peer) = UnixStream::pair().unwrap();
    let client = adopted(mine, false);
    client.write_all(b"unread").unwrap();
    drop(peer);
    client
}

fn reader(client: &Arc<ClientSocket>) -> JoinHandle<Result<usize, ErrorKind>> {
    let client = client.clone();
    thread::spawn(move || client.read(&mut [0; 8]).map_err(|e| e.kind()))
}

fn reset_is_never_the_end(inet: bool) {
    let client = reset(inet);
    let other = reader(&client);
    let mine = client.read(&mut [0; 8]).map_err(|e| e.kind());
    assert_eq!((other.join().unwrap(), mine), (Err(ErrorKind::Reset), Err(ErrorKind::Reset)));
    assert_eq!(client.close_reason(), Some(CloseReason::PeerReset));
    client.abort();
}

/// I4: the kernel reports a reset to one of two reads. The second read returns the reset as well, and
/// not the end of the stream.
#[test]
fn reset_of_tcp_is_never_the_end_of_the_stream() {
    explore("reset against end of stream, TCP", Some(2), || reset_is_never_the_end(true));
}

/// I4: the same for a Unix socket, of which the kernel keeps no trace of the error.
#[test]
fn reset_of_unix_socket_is_never_the_end_of_the_stream() {
    explore("reset against end of stream, Unix", Some(2), || reset_is_never_the_end(false));
}

/// I4: the kernel reports a reset to a read or to a write. Both return it.
#[test]
fn reset_is_reported_to_a_reader_and_a_writer() {
    explore("reset against end of stream, a writer", Some(2), || {
        let client = reset(false);
        let other = reader(&client);
        let written = client.write(b"x").map_err(|e| e.kind());
        assert_eq!(
            (other.join().unwrap(), written),
            (Err(ErrorKind::Reset), Err(ErrorKind::Reset))
        );
        client.abort();
    });
}

/// I3: two reads after a FIN in both directions return the end of the stream, and neither read
/// waits for the other read forever.
#[test]
fn fin_is_the_end_of_the_stream_for_each_reader() {
    explore("end of stream: two readers", Some(2), || {
        let (mine, peer) = UnixStream::pair().unwrap();
        let client = adopted(mine, false);
        drop(peer);
        let other = reader(&client);
        let mine = client.read(&mut [0; 8]).map_err(|e| e.kind());
        assert_eq!((other.join().unwrap(), mine), (Ok(0), Ok(0)));
        assert_eq!(client.close_reason(), Some(CloseReason::PeerClosed));
        client.abort();
    });
}

/// T3: a close ends a read that waits, which reports the close. One of two closes closes the
/// descriptor, and only after the read has left.
#[test]
fn close_ends_a_waiting_read() {
    explore("close against a read", Some(2), || {
        let (mine, _peer) = UnixStream::pair().unwrap();
        let client = adopted(mine, true);
        let read = reader(&client);
        let other = client.clone();
        let other = thread::spawn(move || other.close().is_ok());
        client.close().unwrap();
        assert!(other.join().unwrap());
        assert_eq!(read.join().unwrap(), Err(ErrorKind::Closed));
        assert_eq!(client.close_reason(), Some(CloseReason::Local));
    });
}

/// T3: an abort ends a read that waits, which reports the close and not a reset by the peer.
#[test]
fn abort_ends_a_waiting_read() {
    explore("abort against a read", Some(2), || {
        let (mine, peer) = tcp_pair();
        let client = adopted(mine, true);
        let read = reader(&client);
        client.abort();
        assert_eq!(read.join().unwrap(), Err(ErrorKind::Closed));
        assert_eq!(client.close_reason(), Some(CloseReason::Local));
        drop(peer);
    });
}
