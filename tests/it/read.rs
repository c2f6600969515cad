//! I1: reads of available bytes, of exactly n bytes, up to a delimiter, and of a line.

use std::io::Write;
use std::net::Shutdown;
use std::time::Duration;

use crate::support;
use crate::support::timing::assert_within;
use crate::support::{
    Api, Client, INFINITE, Opt, Outcome, Server, TRANSPORTS, Token, Transport, api, fails, pair,
    timed, with_raw_peer,
};
use crate::support::{limits, process};
use keepsock::{CloseReason, ErrorKind, Framing, LengthFormat};

both_apis![
    read_returns_available_bytes,
    read_slices_fills_buffers_in_order,
    read_slices_after_many_empty_buffers_returns_bytes,
    peek_leaves_the_bytes_for_the_next_read,
    peek_waits_as_read_waits,
    peek_of_buffered_bytes_keeps_a_reset,
    peek_does_not_count_as_traffic,
    read_exact_of_short_stream_keeps_the_bytes,
    read_from_fast_sender_keeps_the_deadline,
    read_until_returns_delimiter,
    read_line_removes_line_end,
    read_line_beyond_maximum_keeps_the_bytes,
    read_line_of_maximum_length_succeeds,
    read_functions_share_one_buffer,
    read_timeout_keeps_received_bytes,
    read_deadline_covers_the_whole_call,
    read_timeout_is_set_and_disabled,
    read_timeout_that_is_short_is_exact,
    read_until_without_memory_keeps_the_bytes,
    read_line_of_binary_data_is_unchanged,
    read_at_end_of_stream_reports_it_again,
    read_that_continues_finds_each_delimiter,
];

/// I1: a read returns the available bytes and does not wait for more. 0 means the end of the
/// stream.
fn read_returns_available_bytes<A: Api>() {
    for transport in TRANSPORTS {
        let p = pair::<A>(transport);
        p.client.write_all(b"hello").unwrap();
        let mut buf = [0; 512];
        assert_eq!(p.accepted.read(&mut buf[..2]).unwrap(), 2);
        assert_eq!(p.accepted.read(&mut buf[2..]).unwrap(), 3);
        assert_eq!(&buf[..5], b"hello");
        p.client.shutdown_write().unwrap();
        assert_eq!(p.accepted.read(&mut buf).unwrap(), 0);
        assert_eq!(p.accepted.read(&mut buf).unwrap(), 0);
    }
}

/// I1, I4: the kernel takes 1,024 buffers in one call (IOV_MAX). Empty buffers before the first buffer
/// with room, however many, do not make a read report the end of the stream.
fn read_slices_after_many_empty_buffers_returns_bytes<A: Api>() {
    for transport in TRANSPORTS {
        for empty in [1023, 1024, 1025, 5000] {
            let p = pair::<A>(transport);
            p.client.write_all(b"waits").unwrap();
            let mut room = [0; 8];
            let mut bufs: Vec<&mut [u8]> = (0..empty).map(|_| &mut [][..]).collect();
            bufs.push(&mut room);
            assert_eq!(p.accepted.read_slices(&mut bufs).unwrap(), 5, "{empty} empty buffers");
            assert_eq!(&room[..5], b"waits");
        }
    }
}

/// I4: a peek that copies buffered bytes also queries the kernel for more bytes. It does not lose a
/// reset that the kernel reports to it.
fn peek_of_buffered_bytes_keeps_a_reset<A: Api>() {
    let (client, mut peer) = with_raw_peer::<A>(&[]);
    peer.write_all(b"one\ntwo").unwrap();
    let mut buf = [0; 64];
    assert_eq!(client.read_line(64).unwrap(), "one");
    support::system::reset(peer);
    assert_eq!(client.peek(&mut buf).unwrap(), 3);
    assert_eq!(client.read(&mut buf).unwrap(), 3);
    fails(client.read(&mut buf), ErrorKind::Reset);
    assert_eq!(client.close_reason(), Some(CloseReason::PeerReset));
}

/// I1: a read fills several buffers in order. Buffered bytes come first.
fn read_slices_fills_buffers_in_order<A: Api>() {
    for transport in TRANSPORTS {
        let p = pair::<A>(transport);
        let (mut a, mut b, mut c) = ([0; 2], [0; 3], [0; 64]);
        p.client.write_all(b"line\n12345678").unwrap();
        assert_eq!(p.accepted.read_slices(&mut [&mut a, &mut [], &mut b]).unwrap(), 5);
        assert_eq!((&a, &b), (b"li", b"ne\n"));
        assert_eq!(p.accepted.read_slices(&mut [&mut [], &mut a, &mut c]).unwrap(), 8);
        assert_eq!((&a, &c[..6]), (b"12", &b"345678"[..]));
        p.client.write_all(b"line\n1234").unwrap();
        assert_eq!(p.accepted.read_line(64).unwrap(), "line");
        assert_eq!(p.accepted.read_slices(&mut [&mut a, &mut b]).unwrap(), 4);
        assert_eq!((&a, &b[..2]), (b"12", &b"34"[..]));
        p.accepted.set_read_timeout(20).unwrap();
        fails(p.accepted.read_slices(&mut [&mut a, &mut b]), ErrorKind::TimedOut);
        p.client.shutdown_write().unwrap();
        assert_eq!(p.accepted.read_slices(&mut [&mut a, &mut b]).unwrap(), 0);
    }
}

/// I1: a peek returns bytes of the read buffer and of the kernel together, and leaves them for the next
/// read.
fn peek_leaves_the_bytes_for_the_next_read<A: Api>() {
    for transport in TRANSPORTS {
        let p = pair::<A>(transport);
        let (mut buf, mut two) = ([0; 64], [0; 2]);
        p.client.write_all(b"line\nrest").unwrap();
        for _ in 0..2 {
            assert_eq!(p.accepted.peek(&mut buf).unwrap(), 9);
            assert_eq!(&buf[..9], b"line\nrest");
        }
        assert_eq!(p.accepted.read_line(64).unwrap(), "line");
        assert_eq!(p.accepted.buffered(), 4);
        assert_eq!(p.accepted.peek(&mut two).unwrap(), 2);
        assert_eq!(&two, b"re");
        p.client.write_all(b"-more").unwrap();
        support::eventually("both parts are copied", || {
            p.accepted.peek(&mut [0; 64]).unwrap() == 9
        });
        assert_eq!(p.accepted.peek(&mut buf).unwrap(), 9);
        assert_eq!((&buf[..9], p.accepted.buffered()), (&b"rest-more"[..], 4));
        let mut all = [0; 9];
        p.accepted.read_exact(&mut all).unwrap();
        assert_eq!(&all, b"rest-more");
        p.client.shutdown_write().unwrap();
        for _ in 0..2 {
            assert_eq!(p.accepted.peek(&mut buf).unwrap(), 0);
        }
        assert_eq!(p.accepted.read(&mut buf).unwrap(), 0);
        p.accepted.close().unwrap();
        fails(p.accepted.peek(&mut buf), ErrorKind::Closed);
    }
    let dir = support::TempDir::new();
    let server = A::listen(&dir.endpoint("s"), &[Opt::Seqpacket(true)]).unwrap();
    let packets = A::connect(&server.endpoint(), &[Opt::Seqpacket(true)]).unwrap();
    fails(packets.peek(&mut [0; 8]), ErrorKind::WrongState);
}

/// I1, T2, T4: a peek waits for the first byte, until the read timeout, the token or a close. In
/// non-blocking mode it does not wait.
fn peek_waits_as_read_waits<A: Api>() {
    for transport in TRANSPORTS {
        let p = pair::<A>(transport);
        let mut buf = [0; 8];
        p.accepted.set_read_timeout(20).unwrap();
        fails(p.accepted.peek(&mut buf), ErrorKind::TimedOut);
        p.accepted.set_nonblocking(true).unwrap();
        fails(p.accepted.peek(&mut buf), ErrorKind::WouldBlock);
        p.accepted.set_nonblocking(false).unwrap();
        p.accepted.set_read_timeout(INFINITE).unwrap();
        let peek = || p.accepted.peek(&mut [0; 8]);
        let (outcome, _) = support::while_waiting(peek, || p.client.write_all(b"x").unwrap());
        assert_eq!(outcome.unwrap(), 1);
        assert_eq!(p.accepted.read(&mut buf).unwrap(), 1);
        let token = A::token();
        p.accepted.set_cancel(Some(&token));
        let (outcome, _) = support::while_waiting(peek, || token.fire());
        fails(outcome, ErrorKind::Cancelled);
        p.accepted.set_cancel(None);
        let (outcome, _) = support::while_waiting(peek, || p.accepted.close().unwrap());
        fails(outcome, ErrorKind::Closed);
    }
    let p = pair::<A>(Transport::Tcp);
    p.client.abort();
    fails(p.accepted.peek(&mut [0; 8]), ErrorKind::Reset);
}

/// K6: bytes that are copied and not read do not count as traffic.
fn peek_does_not_count_as_traffic<A: Api>() {
    let (client, mut peer) = with_raw_peer::<A>(&[Opt::IdleTimeout(2000)]);
    peer.write_all(b"x").unwrap();
    support::eventually("the connection is idle", || {
        let copied = client.peek(&mut [0; 8]);
        match client.check_liveness() {
            Ok(_) => {
                assert_eq!(copied.unwrap(), 1);
                false
            }
            outcome => {
                fails(outcome, ErrorKind::IdleTimeout);
                true
            }
        }
    });
}

/// I1: a read of exactly n bytes. If the stream ends first, the received bytes are counted and
/// kept.
fn read_exact_of_short_stream_keeps_the_bytes<A: Api>() {
    for transport in TRANSPORTS {
        let p = pair::<A>(transport);
        let mut buf = [0; 8];
        let (outcome, _) = support::while_waiting(
            || p.accepted.read_exact(&mut buf),
            || {
                // The data arrives in two parts: the first one does not end the call.
                p.client.write_all(b"1234").unwrap();
                p.client.write_all(b"5678").unwrap();
            },
        );
        outcome.unwrap();
        assert_eq!(&buf, b"12345678");
        p.accepted.read_exact(&mut []).unwrap();

        p.client.write_all(b"abc").unwrap();
        p.client.shutdown_write().unwrap();
        let failure = fails(p.accepted.read_exact(&mut buf), ErrorKind::EndOfStream);
        assert_eq!(failure.transferred, 3);
        assert_eq!(p.accepted.buffered(), 3);
        assert_eq!(p.accepted.read(&mut buf).unwrap(), 3);
        assert_eq!(&buf[..3], b"abc");
        fails(p.accepted.read_exact(&mut buf), ErrorKind::EndOfStream);
    }
}

/// I1: a read up to and including a delimiter. The last piece may lack it.
fn read_until_returns_delimiter<A: Api>() {
    for transport in TRANSPORTS {
        let p = pair::<A>(transport);
        p.client.write_all(b"one;;three;rest").unwrap();
        p.client.shutdown_write().unwrap();
        for piece in [&b"one;"[..], b";", b"three;", b"rest"] {
            assert_eq!(p.accepted.read_until(b';', 64).unwrap(), piece);
        }
        fails(p.accepted.read_until(b';', 64), ErrorKind::EndOfStream);
    }
}

/// I1: a line ends with LF or CRLF, which is removed. A single CR is an ordinary byte. The last
/// line may lack its end.
fn read_line_removes_line_end<A: Api>() {
    for transport in TRANSPORTS {
        let p = pair::<A>(transport);
        p.client.write_all(b"unix\ndos\r\n\n\r\na\rb\nlast\r").unwrap();
        p.client.shutdown_write().unwrap();
        for line in ["unix", "dos", "", "", "a\rb", "last\r"] {
            assert_eq!(p.accepted.read_line(64).unwrap(), line);
        }
        fails(p.accepted.read_line(64), ErrorKind::EndOfStream);
    }
}

/// I1: no delimiter within the maximum is an error, and the bytes stay readable.
fn read_line_beyond_maximum_keeps_the_bytes<A: Api>() {
    for transport in TRANSPORTS {
        let p = pair::<A>(transport);
        p.client.write_all(b"0123456789\n").unwrap();
        let failure = fails(p.accepted.read_line(5), ErrorKind::TooLong);
        assert!(failure.message.ends_with("the line does not end within 5 bytes"), "{failure:?}");
        let failure = fails(p.accepted.read_until(b'\n', 10), ErrorKind::TooLong);
        assert!(failure.message.ends_with("the delimiter is not within 10 bytes"), "{failure:?}");
        assert_eq!(p.accepted.read_line(64).unwrap(), "0123456789");
        // The same if the stream ends before a delimiter.
        p.client.write_all(b"0123456789").unwrap();
        p.client.shutdown_write().unwrap();
        fails(p.accepted.read_line(5), ErrorKind::TooLong);
        assert_eq!(p.accepted.read_line(10).unwrap(), "0123456789");
    }
}

/// I1: the maximum of a line excludes its end.
fn read_line_of_maximum_length_succeeds<A: Api>() {
    for end in ["\n", "\r\n"] {
        for transport in TRANSPORTS {
            let p = pair::<A>(transport);
            p.client.write_all(format!("12345{end}123456{end}").as_bytes()).unwrap();
            p.client.shutdown_write().unwrap();
            assert_eq!(p.accepted.read_line(5).unwrap(), "12345");
            fails(p.accepted.read_line(5), ErrorKind::TooLong);
            assert_eq!(p.accepted.read_line(6).unwrap(), "123456");
        }
    }
}

/// I1: every read function returns the bytes that read_line has buffered.
fn read_functions_share_one_buffer<A: Api>() {
    for transport in TRANSPORTS {
        let p = pair::<A>(transport);
        p.client.write_all(b"line\n1234piece;end").unwrap();
        p.client.shutdown_write().unwrap();
        assert_eq!(p.accepted.read_line(64).unwrap(), "line");
        assert_eq!(p.accepted.buffered(), 13);
        let mut four = [0; 4];
        p.accepted.read_exact(&mut four).unwrap();
        assert_eq!(&four, b"1234");
        assert_eq!(p.accepted.read_until(b';', 64).unwrap(), b"piece;");
        let mut buf = [0; 64];
        assert_eq!(p.accepted.read(&mut buf).unwrap(), 3);
        assert_eq!(&buf[..3], b"end");
        assert_eq!(p.accepted.buffered(), 0);
        assert_eq!(p.accepted.read(&mut buf).unwrap(), 0);
    }
}

/// I1: a timeout has its own error. Bytes before it are counted and kept, and the next read returns
/// them first.
fn read_timeout_keeps_received_bytes<A: Api>() {
    for transport in TRANSPORTS {
        let p = pair::<A>(transport);
        p.accepted.set_read_timeout(40).unwrap();
        let mut buf = [0; 8];
        let failure = fails(p.accepted.read(&mut buf), ErrorKind::TimedOut);
        assert_eq!(failure.transferred, 0);
        assert_eq!(&*failure.operation, "read");
        assert!(failure.message.contains(": timed out after 40 ms"), "{failure:?}");

        p.client.write_all(b"1234").unwrap();
        let failure = fails(p.accepted.read_exact(&mut buf), ErrorKind::TimedOut);
        assert_eq!(failure.transferred, 4);
        let words = ": timed out after 40 ms, 4 bytes transferred";
        assert!(failure.message.contains(words), "{failure:?}");
        fails(p.accepted.read_line(64), ErrorKind::TimedOut);
        fails(p.accepted.read_until(b'8', 64), ErrorKind::TimedOut);
        p.client.write_all(b"5678").unwrap();
        p.accepted.read_exact(&mut buf).unwrap();
        assert_eq!(&buf, b"12345678");
    }
}

/// I1: a peer that occasionally sends a byte does not extend the call.
fn read_deadline_covers_the_whole_call<A: Api>() {
    type Call<A> = fn(&<A as Api>::Client) -> support::Outcome<()>;
    let calls: [Call<A>; 5] = [
        |c| c.read_exact(&mut [0; 4096]),
        |c| c.read_message(&Framing::Fixed { len: 4096 }).map(drop),
        |c| {
            let format = LengthFormat::U8;
            let framing = Framing::LengthField { format, offset: 0, adjustment: 4096, max: 8192 };
            c.read_message(&framing).map(drop)
        },
        |c| c.read_until(b';', 4096).map(drop),
        |c| c.read_line(4096).map(drop),
    ];
    for call in calls {
        let (client, mut peer) = with_raw_peer::<A>(&[Opt::ReadTimeout(200)]);
        let measure = || {
            let stop = std::sync::atomic::AtomicBool::new(false);
            std::thread::scope(|scope| {
                let mut peer = peer.try_clone().unwrap();
                let stop = &stop;
                scope.spawn(move || {
                    while !stop.load(std::sync::atomic::Ordering::Acquire) {
                        peer.write_all(b"x").unwrap();
                        std::thread::sleep(Duration::from_millis(20));
                    }
                });
                let (outcome, took) = timed(|| call(&client));
                stop.store(true, std::sync::atomic::Ordering::Release);
                fails(outcome, ErrorKind::TimedOut);
                assert!(took >= Duration::from_millis(200), "{took:?}");
                took
            })
        };
        support::promptly(Duration::from_millis(280), measure);
        peer.write_all(b"end").unwrap();
    }
}

/// I1: a short timeout expires neither early nor two clock ticks late.
fn read_timeout_that_is_short_is_exact<A: Api>() {
    let p = pair::<A>(Transport::Tcp);
    for ms in [1, 2, 10, 20, 50, 100] {
        p.client.set_read_timeout(ms).unwrap();
        let calls: [&dyn Fn() -> Outcome<()>; 3] = [
            &|| p.client.read(&mut [0; 8]).map(drop),
            &|| p.client.read_exact(&mut [0; 8]),
            &|| p.client.read_line(8).map(drop),
        ];
        for (number, call) in calls.into_iter().enumerate() {
            let limit = Duration::from_millis(u64::try_from(ms).unwrap());
            support::promptly(limit + Duration::from_millis(2), || {
                let (outcome, took) = timed(call);
                fails(outcome, ErrorKind::TimedOut);
                assert!(took >= limit, "call {number}: {took:?} of {limit:?}");
                took
            });
        }
    }
}

/// I1: a timeout of zero is rejected, INFINITE disables it, and a value out of range is rejected.
fn read_timeout_is_set_and_disabled<A: Api>() {
    let p = pair::<A>(support::Transport::Tcp);
    fails(p.accepted.set_read_timeout(0), ErrorKind::InvalidArgument);
    fails(p.accepted.set_write_timeout(0), ErrorKind::InvalidArgument);
    p.accepted.set_read_timeout(20).unwrap();
    fails(p.accepted.read(&mut [0; 8]), ErrorKind::TimedOut);
    p.accepted.set_read_timeout(INFINITE).unwrap();
    let (outcome, _) = support::while_waiting(
        || p.accepted.read(&mut [0; 8]),
        || {
            std::thread::sleep(Duration::from_millis(60));
            p.client.write_all(b"x").unwrap();
        },
    );
    assert_eq!(outcome.unwrap(), 1);
    // The kernel's value: a time below its unit is rounded up, and never becomes "no timeout".
    p.accepted.set_read_timeout(1).unwrap();
    fails(p.accepted.read(&mut [0; 8]), ErrorKind::TimedOut);
    // From the options, for both sides.
    let p = support::pair_with::<A>(
        support::Transport::Tcp,
        &[Opt::ReadTimeout(20), Opt::CloseTimeout(0)],
    );
    fails(p.accepted.read(&mut [0; 8]), ErrorKind::TimedOut);
    fails(p.client.read_line(64), ErrorKind::TimedOut);
}

/// I1: a NUL is an ordinary byte, and a line that is not UTF-8 is a line.
fn read_line_of_binary_data_is_unchanged<A: Api>() {
    let p = pair::<A>(support::Transport::Tcp);
    let all: Vec<u8> = (0..=255).collect();
    p.client.write_all(&all).unwrap();
    p.client.write_all(b"a\0b\xff\n").unwrap();
    let mut got = [0; 256];
    p.accepted.read_exact(&mut got).unwrap();
    assert_eq!(&got[..], all);
    assert_eq!(p.accepted.read_line(64).unwrap(), "a\0b\u{fffd}");
}

/// I1: each read at the end of the stream reports it, and it is not an error.
fn read_at_end_of_stream_reports_it_again<A: Api>() {
    let (client, mut peer) = with_raw_peer::<A>(&[]);
    peer.write_all(b"last words").unwrap();
    peer.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.read_line(64).unwrap(), "last words");
    for _ in 0..3 {
        assert_eq!(client.read(&mut [0; 8]).unwrap(), 0);
        fails(client.read_line(64), ErrorKind::EndOfStream);
        fails(client.read_exact(&mut [0; 8]), ErrorKind::EndOfStream);
    }
    // The other direction is open.
    client.write_all(b"still here\n").unwrap();
}

/// D1: a read without memory for buffered bytes keeps them, and a later read continues.
fn read_until_without_memory_keeps_the_bytes<A: Api>() {
    const MAX: usize = 64 << 20;
    let test = test_name!(A, "read_until_without_memory_keeps_the_bytes");
    process::in_process(&test, Duration::from_secs(60), || {
        let (client, mut peer) = with_raw_peer::<A>(&[]);
        let mut bytes = vec![b'x'; (40 << 20) + 1];
        bytes[40 << 20] = b';';
        let (start, started) = std::sync::mpsc::channel();
        let writer = std::thread::spawn(move || {
            // Sends allocate, so the thread gets its part of the address space before the limit.
            start.send(()).unwrap();
            peer.write_all(&bytes).unwrap();
            peer
        });
        started.recv().unwrap();
        // The C caller provides the buffer.
        let of_caller = if api::<A>() == "C" { MAX as u64 } else { 0 };
        limits::limit_memory(Some(of_caller + (48 << 20)));
        let failure = fails(client.read_until(b';', MAX), ErrorKind::NoMemory);
        assert!(failure.transferred >= 8 << 20, "{failure:?}");
        limits::limit_memory(None);
        assert_eq!(client.read_until(b';', MAX).unwrap().len(), (40 << 20) + 1);
        drop(writer.join().unwrap());
    });
}

/// I1: a sender that never stops does not delay a deadline, and no received byte is lost.
fn read_from_fast_sender_keeps_the_deadline<A: Api>() {
    // The address space of a 32-bit process has no place for more.
    const MUCH: usize = if cfg!(target_pointer_width = "64") { 1 << 30 } else { 1 << 29 };
    let mut buf = vec![0; 2 * MUCH];
    type Read<'a, C> = Box<dyn FnMut(&C) -> Outcome<()> + 'a>;
    let mut reads: Vec<Read<'_, A::Client>> =
        vec![Box::new(move |client| client.read_exact(&mut buf))];
    if A::NUMBER == 1 {
        // The C API writes to a buffer of the maximum size, which takes time to create.
        reads.push(Box::new(|client| client.read_until(b'\n', MUCH).map(drop)));
        reads.push(Box::new(|client| client.read_line(MUCH).map(drop)));
        let framing = Framing::Prefixed { format: LengthFormat::U32Be, max: MUCH };
        reads.push(Box::new(move |client| client.read_message(&framing).map(drop)));
    }
    for read in &mut reads {
        assert_within(Duration::from_millis(400), || {
            let (client, mut peer) = with_raw_peer::<A>(&[Opt::ReadTimeout(200)]);
            let sender = std::thread::spawn(move || {
                let _ = peer.write_all(&(MUCH as u32).to_be_bytes());
                while peer.write_all(&[b'x'; 1 << 20]).is_ok() {}
            });
            let (outcome, took) = timed(|| read(&client));
            let failure = fails(outcome, ErrorKind::TimedOut);
            assert_eq!(client.buffered(), failure.transferred);
            client.abort();
            sender.join().unwrap();
            took
        });
    }
}

/// I1, T4: calls that end before a delimiter arrives leave their bytes to the next call, which may search
/// for another delimiter or read a number of bytes.
fn read_that_continues_finds_each_delimiter<A: Api>() {
    for transport in TRANSPORTS {
        let p = pair::<A>(transport);
        let mut buf = [0; 8];
        p.accepted.set_nonblocking(true).unwrap();
        for round in 0..8 {
            for part in ["a", "b;", "c\n", "d"] {
                let before = p.accepted.buffered();
                p.client.write_all(part.as_bytes()).unwrap();
                support::eventually("the bytes are buffered", || {
                    fails(p.accepted.read_until(0, 64), ErrorKind::WouldBlock);
                    p.accepted.buffered() == before + part.len()
                });
                fails(
                    p.accepted.read_until(if round % 2 == 0 { b'#' } else { 0 }, 64),
                    ErrorKind::WouldBlock,
                );
                fails(p.accepted.read_exact(&mut buf), ErrorKind::WouldBlock);
            }
            let lines = Framing::Lines { max: 64 };
            match round % 4 {
                0 => {
                    assert_eq!(p.accepted.read_until(b';', 64).unwrap(), b"ab;");
                    assert_eq!(p.accepted.read_line(64).unwrap(), "c");
                }
                1 => assert_eq!(p.accepted.read_message(&lines).unwrap(), b"ab;c"),
                2 => {
                    p.accepted.read_exact(&mut buf[..4]).unwrap();
                    assert_eq!(&buf[..4], b"ab;c");
                    assert_eq!(p.accepted.read_line(64).unwrap(), "");
                }
                _ => {
                    let parts = Framing::Delimited { delimiter: b'b', max: 64 };
                    assert_eq!(p.accepted.read_message(&parts).unwrap(), b"a");
                    assert_eq!(p.accepted.read_line(64).unwrap(), ";c");
                }
            }
            fails(p.accepted.read_line(64), ErrorKind::WouldBlock);
            assert_eq!(p.accepted.read(&mut buf).unwrap(), 1);
            assert_eq!(buf[0], b'd');
        }
    }
}
