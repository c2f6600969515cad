//! I1: reading some bytes, exactly n, up to a delimiter, a line.
#![cfg(target_os = "linux")]
// Generic functions are tests that Clippy does not know for such.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::io::Write;
use std::net::Shutdown;
use std::time::Duration;

use common::{Api, Client, INFINITE, Opt, TRANSPORTS, fails, pair, timed, with_raw_peer};
use keepsock::ErrorKind;

both_apis![
    some_bytes_are_what_is_there,
    several_buffers_are_filled_in_turn,
    exactly_n_bytes_or_an_error_that_keeps_them,
    pieces_end_with_their_delimiter,
    lines_lose_their_ends,
    too_long_keeps_the_bytes,
    the_longest_line_has_exactly_the_maximum,
    every_way_of_reading_shares_one_stream,
    a_timeout_keeps_what_came,
    one_deadline_covers_the_whole_call,
    timeouts_are_set_and_lifted,
    bytes_that_are_not_text_survive,
    the_end_of_the_stream,
    messages_with_a_length,
    a_message_that_is_too_long,
    a_message_that_is_cut,
];

/// I1: a read takes what is there and does not wait for more; 0 is the end.
fn some_bytes_are_what_is_there<A: Api>() {
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

/// I1: several buffers, one after another, some bytes at a time; bytes that were read
/// ahead come first.
fn several_buffers_are_filled_in_turn<A: Api>() {
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

/// I1: exactly n bytes; when the stream ends first, what came is counted and kept.
fn exactly_n_bytes_or_an_error_that_keeps_them<A: Api>() {
    for transport in TRANSPORTS {
        let p = pair::<A>(transport);
        let mut buf = [0; 8];
        let (outcome, _) = common::while_waiting(
            || p.accepted.read_exact(&mut buf),
            || {
                // In two parts: the first does not end the call.
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

/// I1: up to and with a delimiter; the last piece may lack it.
fn pieces_end_with_their_delimiter<A: Api>() {
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

/// I1: a line ends with LF or CRLF, which are taken off; a lone CR is a byte like
/// others. The last line may lack its end.
fn lines_lose_their_ends<A: Api>() {
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
fn too_long_keeps_the_bytes<A: Api>() {
    for transport in TRANSPORTS {
        let p = pair::<A>(transport);
        p.client.write_all(b"0123456789\n").unwrap();
        fails(p.accepted.read_line(5), ErrorKind::TooLong);
        fails(p.accepted.read_until(b'\n', 10), ErrorKind::TooLong);
        assert_eq!(p.accepted.read_line(64).unwrap(), "0123456789");
        // Also when the stream ends before a delimiter.
        p.client.write_all(b"0123456789").unwrap();
        p.client.shutdown_write().unwrap();
        fails(p.accepted.read_line(5), ErrorKind::TooLong);
        assert_eq!(p.accepted.read_line(10).unwrap(), "0123456789");
    }
}

/// I1: the maximum of a line does not count its end.
fn the_longest_line_has_exactly_the_maximum<A: Api>() {
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

/// I1: what a line's reader read ahead, the other ways of reading find.
fn every_way_of_reading_shares_one_stream<A: Api>() {
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

/// I1: a timeout is an error of its own; what came before it is counted, kept, and the
/// start of the next read.
fn a_timeout_keeps_what_came<A: Api>() {
    for transport in TRANSPORTS {
        let p = pair::<A>(transport);
        p.accepted.set_read_timeout(40).unwrap();
        let mut buf = [0; 8];
        let failure = fails(p.accepted.read(&mut buf), ErrorKind::TimedOut);
        assert_eq!(failure.transferred, 0);
        assert_eq!(failure.operation, "read");

        p.client.write_all(b"1234").unwrap();
        let failure = fails(p.accepted.read_exact(&mut buf), ErrorKind::TimedOut);
        assert_eq!(failure.transferred, 4);
        fails(p.accepted.read_line(64), ErrorKind::TimedOut);
        fails(p.accepted.read_until(b'8', 64), ErrorKind::TimedOut);
        p.client.write_all(b"5678").unwrap();
        p.accepted.read_exact(&mut buf).unwrap();
        assert_eq!(&buf, b"12345678");
    }
}

/// I1: a peer that sends one byte now and then does not prolong a call.
fn one_deadline_covers_the_whole_call<A: Api>() {
    type Call<A> = fn(&<A as Api>::Client) -> common::Outcome<()>;
    let calls: [Call<A>; 3] = [
        |c| c.read_exact(&mut [0; 4096]),
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
        common::promptly(Duration::from_millis(280), measure);
        peer.write_all(b"end").unwrap();
    }
}

/// I1: zero is no timeout, no limit is none, and out of range is refused.
fn timeouts_are_set_and_lifted<A: Api>() {
    let p = pair::<A>(common::Transport::Tcp);
    fails(p.accepted.set_read_timeout(0), ErrorKind::InvalidArgument);
    fails(p.accepted.set_write_timeout(0), ErrorKind::InvalidArgument);
    p.accepted.set_read_timeout(20).unwrap();
    fails(p.accepted.read(&mut [0; 8]), ErrorKind::TimedOut);
    p.accepted.set_read_timeout(INFINITE).unwrap();
    let (outcome, _) = common::while_waiting(
        || p.accepted.read(&mut [0; 8]),
        || {
            std::thread::sleep(Duration::from_millis(60));
            p.client.write_all(b"x").unwrap();
        },
    );
    assert_eq!(outcome.unwrap(), 1);
    // Read back: a time below the kernel's unit is rounded up, never to "no limit".
    p.accepted.set_read_timeout(1).unwrap();
    fails(p.accepted.read(&mut [0; 8]), ErrorKind::TimedOut);
    // From the options, for both sides.
    let p = common::pair_with::<A>(
        common::Transport::Tcp,
        &[Opt::ReadTimeout(20), Opt::CloseTimeout(0)],
    );
    fails(p.accepted.read(&mut [0; 8]), ErrorKind::TimedOut);
    fails(p.client.read_line(64), ErrorKind::TimedOut);
}

/// I1: a NUL is a byte like others; a line that is not UTF-8 is still a line.
fn bytes_that_are_not_text_survive<A: Api>() {
    let p = pair::<A>(common::Transport::Tcp);
    let all: Vec<u8> = (0..=255).collect();
    p.client.write_all(&all).unwrap();
    p.client.write_all(b"a\0b\xff\n").unwrap();
    let mut got = [0; 256];
    p.accepted.read_exact(&mut got).unwrap();
    assert_eq!(&got[..], all);
    assert_eq!(p.accepted.read_line(64).unwrap(), "a\0b\u{fffd}");
}

/// I1: the end of the stream is told as often as one asks, and it is no error.
fn the_end_of_the_stream<A: Api>() {
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

/// V6: what was written is what is read, with each prefix, on both transports.
fn messages_with_a_length<A: Api>() {
    use keepsock::LengthPrefix::{U8, U16Be, U16Le, U32Be, U32Le};
    for transport in TRANSPORTS {
        let p = pair::<A>(transport);
        for prefix in [U8, U16Be, U16Le, U32Be, U32Le] {
            for message in [&b""[..], b"x", &[7; 255]] {
                p.client.write_message(prefix, message).unwrap();
                p.client.write_message(prefix, b"next").unwrap();
                assert_eq!(p.accepted.read_message(prefix, 255).unwrap(), message);
                assert_eq!(p.accepted.read_message(prefix, 4).unwrap(), b"next");
            }
        }
        fails(p.client.write_message(U8, &[0; 256]), ErrorKind::InvalidArgument);
        let long = vec![b'l'; 1 << 20];
        std::thread::scope(|scope| {
            scope.spawn(|| p.client.write_message(U32Be, &long).unwrap());
            assert!(p.accepted.read_message(U32Be, 1 << 20).unwrap() == long);
        });
    }
}

/// V6: a clear error, and the bytes stay.
fn a_message_that_is_too_long<A: Api>() {
    use keepsock::LengthPrefix::U16Be;
    let p = pair::<A>(common::Transport::Tcp);
    p.client.write_message(U16Be, b"12345").unwrap();
    fails(p.accepted.read_message(U16Be, 4), ErrorKind::TooLong);
    assert_eq!(p.accepted.read_message(U16Be, 5).unwrap(), b"12345");
    // A prefix that asks for what nobody sends does not make room for it.
    p.client.write_all(&[0xff, 0xff]).unwrap();
    fails(p.accepted.read_message(U16Be, 1000), ErrorKind::TooLong);
}

/// V6, I1: what had come is kept.
fn a_message_that_is_cut<A: Api>() {
    use keepsock::LengthPrefix::U32Le;
    let p = pair::<A>(common::Transport::Tcp);
    p.client.write_all(&[3, 0, 0, 0, b'a', b'b']).unwrap();
    p.accepted.set_read_timeout(30).unwrap();
    fails(p.accepted.read_message(U32Le, 10), ErrorKind::TimedOut);
    p.client.write_all(b"c").unwrap();
    assert_eq!(p.accepted.read_message(U32Le, 10).unwrap(), b"abc");
    p.client.write_all(&[3, 0]).unwrap();
    p.client.shutdown_write().unwrap();
    fails(p.accepted.read_message(U32Le, 10), ErrorKind::EndOfStream);
    let mut rest = [0; 2];
    p.accepted.read_exact(&mut rest).unwrap();
    assert_eq!(rest, [3, 0]);
}
