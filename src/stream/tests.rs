//! Tests of error reporting and of timeouts.
#![cfg_attr(not(target_os = "linux"), allow(unused_imports))] // Only Linux runs many of them.

use std::cell::Cell;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use crate::sys::SockRef;

use super::ClientSocket;
use crate::listener::ServerSocket;
use crate::options::SocketOptions;
#[cfg(feature = "serve")]
use crate::sys::sync::atomic::Ordering;
use crate::sys::{self, Interest};
use crate::types::error::{Error, ErrorKind};

thread_local! {
    static LATE: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    static GATE: Cell<Option<Receiver<()>>> = const { Cell::new(None) };
}

/// Delays the thread between the system call that reported an error and the record of the error, as a
/// scheduler may do: for [`LATE`], or until the sender of [`GATE`] is dropped.
pub(super) fn before_the_record() {
    std::thread::sleep(LATE.get());
    if let Some(gate) = GATE.take() {
        let _ = gate.recv();
    }
}

/// I1: a timeout below a microsecond, the kernel's unit, expires.
#[test]
fn read_timeout_below_a_microsecond_expires() {
    let server = ServerSocket::listen("127.0.0.1:0").unwrap();
    let client = ClientSocket::connect(server.endpoint()).unwrap();
    client.set_read_timeout(Duration::from_nanos(500)).unwrap();
    assert_eq!(client.read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::TimedOut);
}

/// I1: a call keeps the timeout with which it started. On a busy machine the call may start after the
/// timeout is removed, so that it waits until the peer writes. A longer pause follows.
#[test]
fn read_keeps_its_timeout_when_it_is_removed() {
    let pauses = [50, 500, 5000].map(Duration::from_millis);
    assert!(pauses.into_iter().any(|pause| {
        let server = ServerSocket::listen("127.0.0.1:0").unwrap();
        let client = ClientSocket::connect(server.endpoint()).unwrap();
        let peer = server.accept().unwrap();
        client.set_read_timeout(4 * pause).unwrap();
        std::thread::scope(|scope| {
            let read = scope.spawn(|| client.read(&mut [0; 8]));
            std::thread::sleep(pause);
            client.set_read_timeout(None).unwrap();
            std::thread::sleep(6 * pause);
            peer.write_all(b"x").unwrap();
            read.join().unwrap().is_err_and(|e| e.kind() == ErrorKind::TimedOut)
        })
    }));
}

/// I1, T4: a call keeps its full timeout if another user of the descriptor sets O_NONBLOCK.
#[test]
fn read_timeout_is_kept_when_o_nonblock_is_set_from_outside() {
    let server = ServerSocket::listen("127.0.0.1:0").unwrap();
    let client = ClientSocket::connect(server.endpoint()).unwrap();
    client.set_read_timeout(Duration::from_millis(200)).unwrap();
    sys::set_nonblocking(client.descriptor.enter().unwrap().socket(), true).unwrap();
    let start = std::time::Instant::now();
    assert_eq!(client.read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::TimedOut);
    assert!(start.elapsed() >= Duration::from_millis(190), "{:?}", start.elapsed());
}

/// I3: reads report a FIN as the end of the stream, also if an RST for later data followed it and the
/// program has a borrowed descriptor.
#[test]
#[cfg(target_os = "linux")]
fn read_reports_eof_for_a_fin_before_a_reset() {
    let server = ServerSocket::listen("127.0.0.1:0").unwrap();
    let client = ClientSocket::connect(server.endpoint()).unwrap();
    let peer = server.accept().unwrap();
    peer.write_all(b"reply").unwrap();
    peer.shutdown_write().unwrap();
    peer.set_close_timeout(Duration::ZERO);
    drop(peer);
    let _held = client.borrow().unwrap();
    client.write_all(b"too late").unwrap();
    let mut buf = [0; 8];
    assert_eq!(client.read(&mut buf).unwrap(), 5);
    assert_eq!(client.read(&mut buf).unwrap(), 0);
}

/// A connection whose kernel is about to report a reset to one call.
#[cfg(target_os = "linux")]
fn reset_connection(unix: bool) -> ClientSocket {
    use std::os::fd::OwnedFd;
    let (mine, peer): (OwnedFd, OwnedFd) = if unix {
        let (mine, peer) = std::os::unix::net::UnixStream::pair().unwrap();
        (mine.into(), peer.into())
    } else {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        let mine = std::net::TcpStream::connect(to).unwrap();
        (mine.into(), listener.accept().unwrap().0.into())
    };
    let client = ClientSocket::from_owned(mine, &SocketOptions::new()).unwrap();
    if unix {
        // A Unix socket is reset by a close with unread input.
        client.write_all(b"unread").unwrap();
    } else {
        SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
    }
    drop(peer);
    let io = client.descriptor.enter().unwrap();
    let hangup = Some((io.socket(), Interest::Hangup));
    assert!(sys::poll(hangup, None, Some(Duration::from_secs(60))).unwrap().error);
    drop(io);
    client
}

#[cfg(target_os = "linux")]
fn has_error(client: &ClientSocket) -> bool {
    let io = client.descriptor.enter().unwrap();
    let hangup = Some((io.socket(), Interest::Hangup));
    sys::poll(hangup, None, Some(Duration::ZERO)).unwrap().error
}

/// Lets the call `first` get the error, and starts the call `second` about 300 ms before the thread of
/// `first` records the error.
#[cfg(target_os = "linux")]
fn before_it_is_recorded<T: Send>(
    first: impl Fn(&ClientSocket) -> ErrorKind + Sync,
    second: impl Fn(&ClientSocket) -> T + Sync,
    unix: bool,
) -> T {
    let client = reset_connection(unix);
    let (open, gate) = channel();
    std::thread::scope(|scope| {
        let (client, first) = (&client, &first);
        let late = scope.spawn(move || {
            GATE.set(Some(gate));
            first(client)
        });
        let until = Instant::now() + Duration::from_secs(60);
        while has_error(client) {
            assert!(Instant::now() < until, "no call has got the error");
            std::thread::yield_now();
        }
        assert_eq!(client.close_reason(), None, "the error is recorded later");
        scope.spawn(move || {
            std::thread::sleep(Duration::from_millis(300));
            drop(open);
        });
        let seen = second(client);
        assert_eq!(late.join().unwrap(), ErrorKind::Reset);
        assert_eq!(client.close_reason(), Some(crate::CloseReason::PeerReset));
        seen
    })
}

#[cfg(target_os = "linux")]
fn write(client: &ClientSocket) -> ErrorKind {
    client.write_all(b"x").unwrap_err().kind()
}

#[cfg(target_os = "linux")]
fn read(client: &ClientSocket) -> ErrorKind {
    client.read(&mut [0; 8]).unwrap_err().kind()
}

/// I4: the direct system call of a read gets the reset. Another thread has read the last bytes before,
/// and leaves them in the buffer. The read returns the bytes, and the next read reports the reset.
#[test]
#[cfg(target_os = "linux")]
fn read_of_bytes_of_another_thread_keeps_the_reset() {
    for unix in [false, true] {
        let client = reset_connection(unix);
        let mut buf = [0; 8];
        let io = client.descriptor.enter().unwrap();
        let failed = sys::recv(io.socket(), &mut buf, sys::Wait::No);
        assert!(failed.is_err(), "{failed:?}");
        let mut buffer = client.lock_buffer();
        buffer.append(b"abcd").unwrap();
        client.update_buffered_flag(&buffer);
        drop(buffer);
        assert_eq!(client.read_with(io, &mut buf, None, Some(failed)).ok(), Some(4));
        assert_eq!(read(&client), ErrorKind::Reset, "unix: {unix}");
        assert_eq!(client.close_reason(), Some(crate::CloseReason::PeerReset));
    }
}

/// I4: a message of a service that is not sent, because this side has shut down sending, does not
/// hide a reset from reads.
#[test]
#[cfg(all(target_os = "linux", feature = "serve"))]
fn try_send_after_shutdown_keeps_the_reset() {
    use super::try_send::TrySend;
    let client = reset_connection(false);
    client.flags.fetch_or(super::flags::HALF_CLOSED, Ordering::Relaxed);
    let guard = client.write_lock().try_lock().unwrap();
    assert!(matches!(client.try_send(b"x", &guard), TrySend::ShutDown));
    drop(guard);
    assert_eq!(read(&client), ErrorKind::Reset);
}

/// I4: every read reports a reset, although the kernel reports it to one call only and the end of the
/// stream to the other calls, and although that call may record it late.
#[test]
#[cfg(target_os = "linux")]
fn read_waits_for_the_record_of_another_call() {
    assert_eq!(before_it_is_recorded(write, read, false), ErrorKind::Reset);
    // A Unix socket reports a reset to reads only.
    for unix in [false, true] {
        assert_eq!(before_it_is_recorded(read, read, unix), ErrorKind::Reset);
        let line = |client: &ClientSocket| client.read_line(8).unwrap_err().kind();
        assert_eq!(before_it_is_recorded(read, line, unix), ErrorKind::Reset);
        let hangup = |client: &ClientSocket| client.wait_hangup(None).unwrap();
        assert_eq!(before_it_is_recorded(read, hangup, unix), crate::CloseReason::PeerReset);
        let check = |client: &ClientSocket| client.check_liveness().unwrap_err().kind();
        assert_eq!(before_it_is_recorded(read, check, unix), ErrorKind::Reset);
    }
}

/// K7: a write that gets EPIPE because a read has got the error returns the same error.
#[test]
#[cfg(target_os = "linux")]
fn write_waits_for_the_record_of_another_call() {
    assert_eq!(before_it_is_recorded(read, write, false), ErrorKind::Reset);
    assert_eq!(before_it_is_recorded(read, write, true), ErrorKind::Reset);
}

/// I4: several readers that get the end of the stream wait for the call that has the error. They do
/// not wait for each other or for a borrowed descriptor.
#[test]
#[cfg(target_os = "linux")]
fn readers_do_not_wait_for_each_other() {
    let client = reset_connection(false);
    let _held = client.borrow().unwrap();
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    LATE.set(Duration::from_millis(100));
                    read(&client)
                })
            })
            .collect();
        for reader in readers {
            assert_eq!(reader.join().unwrap(), ErrorKind::Reset);
        }
    });
}

/// I4: a read reports a FIN immediately, although a write of another thread is waiting.
#[test]
#[cfg(target_os = "linux")]
fn end_of_stream_does_not_wait_for_a_writer() {
    let server = ServerSocket::listen("127.0.0.1:0").unwrap();
    let client = ClientSocket::connect(server.endpoint()).unwrap();
    let peer = server.accept().unwrap();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| client.write_all(&vec![0; 64 << 20]));
        let mut first = [0; 1];
        peer.read_exact(&mut first).unwrap();
        peer.shutdown_write().unwrap();
        assert_eq!(client.read(&mut [0; 8]).unwrap(), 0);
        assert!(!writer.is_finished());
        client.abort();
        assert_eq!(writer.join().unwrap().unwrap_err().kind(), ErrorKind::Closed);
    });
}

/// I3: a close does not report lost data if the kernel has accepted no byte.
#[test]
#[cfg(target_os = "linux")]
fn close_after_a_write_of_no_byte_succeeds() {
    for unix in [false, true] {
        let client = reset_connection(unix);
        let lost = unix; // `reset_connection` writes to a Unix socket.
        client.write_all(b"x").unwrap_err();
        assert_eq!(client.close_reason(), Some(crate::CloseReason::PeerReset));
        assert_eq!(client.close().is_err(), lost, "unix: {unix}");
    }
}

/// V5: a call that ends because another thread aborts the connection finds that it was reset, so a
/// drain does not count the connection as completed.
#[cfg(feature = "serve")]
#[test]
fn abort_is_a_reset_as_soon_as_calls_end() {
    let server = ServerSocket::listen("127.0.0.1:0").unwrap();
    for _ in 0..100 {
        let client = ClientSocket::connect(server.endpoint()).unwrap();
        let _peer = server.accept().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| client.abort());
            while !client.has(super::flags::CLOSING) {
                std::hint::spin_loop();
            }
            assert!(client.was_reset());
        });
    }
}

/// I1: calls that end before the delimiter arrives search each byte once, however many calls there are.
#[test]
fn read_that_continues_searches_each_byte_once() {
    use crate::types::framing::{Framing, SEARCHED};
    const PIECE: usize = 1_000;
    const PIECES: usize = 100;
    type Read<'a> = &'a dyn Fn(&ClientSocket) -> Result<usize, Error>;
    let max = 2 * PIECE * PIECES;
    let lines = Framing::Lines { max };
    let until = Framing::Delimited { delimiter: b'\n', max };
    let reads: [Read<'_>; 4] = [
        &|client| client.read_message(&lines).map(|message| message.len()),
        &|client| client.read_message(&until).map(|message| message.len()),
        &|client| client.read_line(max).map(|line| line.len()),
        &|client| client.read_until(b'\n', max).map(|line| line.len() - 1),
    ];
    for read in reads {
        for blocking in [false, true] {
            let server = ServerSocket::listen("127.0.0.1:0").unwrap();
            let client = ClientSocket::connect(server.endpoint()).unwrap();
            let peer = server.accept().unwrap();
            client.set_nonblocking(!blocking).unwrap();
            client.set_read_timeout(Duration::from_millis(1)).unwrap();
            let before = SEARCHED.get();
            for piece in 1..=PIECES {
                peer.write_all(&[b'a'; PIECE]).unwrap();
                while client.buffered() < piece * PIECE {
                    read(&client).unwrap_err();
                }
            }
            peer.write_all(b"\n").unwrap();
            let len = loop {
                match read(&client) {
                    Ok(len) => break len,
                    Err(e) => {
                        assert!(matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut))
                    }
                }
            };
            assert_eq!(len, PIECE * PIECES);
            assert_eq!(SEARCHED.get() - before, PIECE * PIECES + 1);
        }
    }
}

/// I1: calls of `read_exact` that end early keep each byte once, however many calls there are.
#[test]
fn read_exact_that_continues_copies_each_byte_once() {
    use crate::io::read_buffer::COPIED;
    const PIECE: usize = 1_000;
    const PIECES: usize = 100;
    let server = ServerSocket::listen("127.0.0.1:0").unwrap();
    let client = ClientSocket::connect(server.endpoint()).unwrap();
    let peer = server.accept().unwrap();
    client.set_nonblocking(true).unwrap();
    let mut all = vec![0; (PIECES + 1) * PIECE];
    let before = COPIED.get();
    for piece in 1..=PIECES + 1 {
        peer.write_all(&[piece as u8; PIECE]).unwrap();
        while piece <= PIECES && client.buffered() < piece * PIECE {
            let err = client.read_exact(&mut all).unwrap_err();
            assert_eq!((err.kind(), err.transferred()), (ErrorKind::WouldBlock, client.buffered()));
        }
    }
    while let Err(err) = client.read_exact(&mut all) {
        assert_eq!(err.kind(), ErrorKind::WouldBlock);
    }
    for (i, piece) in all.chunks(PIECE).enumerate() {
        assert_eq!(piece, [i as u8 + 1; PIECE]);
    }
    assert!(COPIED.get() - before <= all.len(), "{}", COPIED.get() - before);
}

/// I1: a connection is a reader and a writer of the standard library.
#[test]
fn connection_as_reader_and_writer_transfers_the_bytes() {
    use std::io::{Read, Write};
    let server = ServerSocket::listen("127.0.0.1:0").unwrap();
    let client = ClientSocket::connect(server.endpoint()).unwrap();
    let accepted = server.accept().unwrap();
    let mut writer: &ClientSocket = &client;
    Write::write_all(&mut writer, b"hello").unwrap();
    writer.flush().unwrap();
    client.shutdown_write().unwrap();
    let mut received = Vec::new();
    let mut reader: &ClientSocket = &accepted;
    Read::read_to_end(&mut reader, &mut received).unwrap();
    assert_eq!(received, b"hello");
    accepted.abort();
    let error = Read::read(&mut reader, &mut [0]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::NotConnected);
}

/// L8, D4: values that no socket can have.
#[test]
fn listen_with_impossible_values_is_rejected() {
    for (options, word) in [
        (SocketOptions::new().backlog(0), "backlog"),
        (SocketOptions::new().unix_owner(Some(u32::MAX), None), "unix_owner"),
    ] {
        let error = ServerSocket::listen_with("unix:/none/s", &options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.to_string().contains(word), "{error}");
    }
}
