//! V6: the framings, in blocking reads, in non-blocking reads and with event loops.

use std::io::Write;
use std::net::Shutdown;
use std::time::Duration;

use keepsock::LengthFormat::{
    U8, U16Be, U16Le, U24Be, U24Le, U32Be, U32Le, U64Be, U64Le, VarintMqtt, VarintProtobuf,
};
use keepsock::{ErrorKind, Framing, LengthFormat};

use crate::support::{
    Api, Client, INFINITE, TRANSPORTS, Transport, eventually, fails, pair, with_raw_peer,
};

both_apis![
    message_in_each_framing_is_received_as_written,
    message_split_at_each_position_would_block_and_keeps_the_bytes,
    message_after_a_timeout_is_received_whole,
    message_that_is_too_long_or_malformed_keeps_the_bytes,
    message_that_is_incomplete_at_the_end_keeps_the_bytes,
    invalid_framing_is_rejected,
    #[cfg(feature = "serve")] {
        events_of_message_split_at_each_position_are_whole,
        events_of_bad_message_end_only_its_connection,
        events_with_invalid_framing_are_rejected,
        send_of_a_message_that_does_not_return_is_rejected,
    }
];

const FORMATS: [LengthFormat; 11] =
    [U8, U16Be, U16Le, U24Be, U24Le, U32Be, U32Le, U64Be, U64Le, VarintMqtt, VarintProtobuf];

/// MQTT: the packet type, then the remaining length.
const MQTT: Framing = field(VarintMqtt, 1, 0, 400);

const fn field(format: LengthFormat, offset: usize, adjustment: i32, max: usize) -> Framing {
    Framing::LengthField { format, offset, adjustment, max }
}

/// Messages: the bytes of the stream, and the message that a receiver finds there.
struct Case {
    framing: Framing,
    messages: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Case {
    fn stream(&self) -> Vec<u8> {
        self.messages.iter().flat_map(|(bytes, _)| bytes.clone()).collect()
    }

    /// The number of messages in the first `at` bytes, and the number of bytes after them.
    fn within(&self, at: usize) -> (usize, usize) {
        let (mut count, mut left) = (0, at);
        for (bytes, _) in &self.messages {
            if bytes.len() > left {
                break;
            }
            left -= bytes.len();
            count += 1;
        }
        (count, left)
    }
}

fn case(framing: Framing, messages: &[(&[u8], &[u8])]) -> Case {
    let messages = messages.iter().map(|(bytes, message)| (bytes.to_vec(), message.to_vec()));
    Case { framing, messages: messages.collect() }
}

/// Frames that are delivered whole.
fn frames(framing: Framing, frames: &[&[u8]]) -> Case {
    let messages: Vec<_> = frames.iter().map(|frame| (*frame, *frame)).collect();
    case(framing, &messages)
}

fn cases() -> Vec<Case> {
    let long = vec![b'm'; 200];
    let varint = [&[0xc8, 1][..], &long].concat();
    let publish = [&[0x30, 0xc8, 1][..], &long].concat();
    let prefixed = |format, messages: &[(&[u8], &[u8])]| {
        case(Framing::Prefixed { format, max: 200 }, messages)
    };
    let lines: [(&[u8], &[u8]); 3] = [(b"one\r\n", b"one"), (b"\n", b""), (b"x\n", b"x")];
    let delimited: [(&[u8], &[u8]); 3] = [(b"one;", b"one"), (b";", b""), (b"x;", b"x")];
    vec![
        case(Framing::Lines { max: 3 }, &lines),
        case(Framing::Delimited { delimiter: b';', max: 3 }, &delimited),
        frames(Framing::Fixed { len: 3 }, &[b"one", b"two"]),
        frames(Framing::Fixed { len: 1 }, &[b"1", b"2"]),
        prefixed(U8, &[(b"\x03one", b"one"), (b"\0", b""), (b"\x01x", b"x")]),
        prefixed(U16Be, &[(b"\0\x03one", b"one"), (b"\0\0", b"")]),
        prefixed(U16Le, &[(b"\x03\0one", b"one"), (b"\0\0", b"")]),
        prefixed(U24Be, &[(b"\0\0\x03one", b"one"), (b"\0\0\0", b"")]),
        prefixed(U24Le, &[(b"\x03\0\0one", b"one"), (b"\0\0\0", b"")]),
        prefixed(U32Be, &[(b"\0\0\0\x03one", b"one"), (b"\0\0\0\0", b"")]),
        prefixed(U32Le, &[(b"\x03\0\0\0one", b"one"), (b"\0\0\0\0", b"")]),
        prefixed(U64Be, &[(b"\0\0\0\0\0\0\0\x03one", b"one"), (&[0; 8], b"")]),
        prefixed(U64Le, &[(b"\x03\0\0\0\0\0\0\0one", b"one"), (&[0; 8], b"")]),
        prefixed(VarintMqtt, &[(b"\x03one", b"one"), (b"\0", b""), (&varint, &long)]),
        // A longer form than necessary.
        prefixed(VarintProtobuf, &[(b"\x83\x80\x80\0one", b"one"), (&varint, &long)]),
        // CONNECT, PINGREQ, PUBLISH.
        frames(MQTT, &[b"\x10\x02ab", b"\xc0\0", &publish]),
        // The length counts the whole frame: minus the bytes before the body.
        frames(field(U16Be, 2, -4, 9), &[b"id\0\x09hello", b"id\0\x04"]),
        // PostgreSQL: the length counts itself and not the type.
        frames(field(U32Be, 1, -4, 64), &[b"Q\0\0\0\x08abc\0", b"S\0\0\0\x04"]),
        // The length counts what follows the two bytes after it.
        frames(field(U24Le, 0, 2, 64), &[b"\x01\0\0hhb", b"\0\0\0hh"]),
        frames(field(U64Le, 3, 0, 64), &[b"abc\x02\0\0\0\0\0\0\0de"]),
    ]
}

/// The framing, a bad message, and the error.
fn bad_messages() -> Vec<(Framing, &'static [u8], ErrorKind)> {
    use ErrorKind::{Malformed, TooLong};
    let prefixed = |format, max| Framing::Prefixed { format, max };
    vec![
        (Framing::Lines { max: 3 }, b"four", TooLong),
        (Framing::Delimited { delimiter: 0, max: 3 }, b"four", TooLong),
        (prefixed(U8, 3), b"\x04", TooLong),
        (prefixed(U16Le, 10), b"\x0b\0", TooLong),
        (prefixed(U24Be, 10), b"\x01\0\0", TooLong),
        (prefixed(U32Be, 10), &[0xff; 4], TooLong),
        (prefixed(U64Be, 10), &[0xff; 8], TooLong),
        (prefixed(U64Le, usize::MAX), &[0xff; 8], TooLong),
        (prefixed(VarintMqtt, 10), b"\x0b", TooLong),
        (prefixed(VarintProtobuf, 10), b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", TooLong),
        (field(U8, 2, 0, 5), b"id\x03", TooLong),
        (field(U8, 0, i32::MAX, 100), b"\0", TooLong),
        (field(U64Be, 0, i32::MAX, usize::MAX), &[0xff; 8], TooLong),
        (MQTT, b"\x30\xff\xff\xff\x7f", TooLong),
        // More than four bytes, and not the shortest form.
        (MQTT, b"\x30\x80\x80\x80\x80", Malformed),
        (MQTT, b"\x30\x81\0", Malformed),
        (prefixed(VarintMqtt, 10), b"\x80\x80\0", Malformed),
        // More than ten bytes, and more than 64 bits.
        (prefixed(VarintProtobuf, 10), &[0x80; 10], Malformed),
        (prefixed(VarintProtobuf, 10), b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x02", Malformed),
        // The length is below zero.
        (field(U16Be, 0, -2, 100), b"\0\x01", Malformed),
        (field(VarintProtobuf, 1, -11, 100), b"T\x0a", Malformed),
    ]
}

fn invalid_framings() -> Vec<(Framing, &'static str)> {
    const MAX: usize = usize::MAX;
    let sum = "max must be at least the sum of the offset";
    let zero = "must be greater than zero";
    vec![
        (Framing::Fixed { len: 0 }, zero),
        (Framing::Lines { max: 0 }, zero),
        (Framing::Delimited { delimiter: 0, max: 0 }, zero),
        (Framing::Prefixed { format: U64Be, max: 0 }, zero),
        (field(VarintMqtt, 0, 0, 0), zero),
        (Framing::Prefixed { format: U24Le, max: 1 << 24 }, "max must be at most 16777215"),
        (Framing::Prefixed { format: VarintMqtt, max: MAX }, "max must be at most 268435455"),
        (field(U8, MAX, 0, MAX), sum),
        (field(U32Be, MAX - 2, 0, MAX), sum),
        (field(U32Be, 1, 0, 4), sum),
        (field(VarintMqtt, 1, 0, 1), sum),
        (field(U16Be, 0, -100, 100), "length_adjustment is -100"),
        (field(VarintProtobuf, 1, -12, 100), "length_adjustment is -12"),
    ]
}

/// Messages that the peer would receive as others.
fn messages_that_do_not_return() -> Vec<(Framing, &'static [u8], &'static str)> {
    let lines = Framing::Lines { max: 255 };
    vec![
        (lines, b"a\n", "the line contains LF"),
        (lines, b"a\r", "the line ends with CR"),
        (lines, b"\r", "the line ends with CR"),
        (Framing::Delimited { delimiter: b';', max: 9 }, b"a;b", "contains byte 59"),
        (Framing::Fixed { len: 4 }, b"five5", "has 5 bytes, and each message of the framing has 4"),
        (Framing::Fixed { len: 4 }, b"", "has 0 bytes, and each message of the framing has 4"),
        (MQTT, b"\x10\x02abc", "the frame has 5 bytes, and its length field describes 4"),
        (MQTT, b"\x10\x02a", "the frame has 3 bytes, and its length field describes 4"),
        (MQTT, b"\x10", "the frame of 1 byte has no valid length field at offset 1"),
        (field(U16Be, 0, -2, 99), b"\0\x01", "the frame of 2 bytes has no valid length field"),
    ]
}

/// V6: a message arrives as it was written, in each framing and on both transports.
fn message_in_each_framing_is_received_as_written<A: Api>() {
    for transport in TRANSPORTS {
        let p = pair::<A>(transport);
        let mut framings =
            vec![Framing::Lines { max: 255 }, Framing::Delimited { delimiter: 0, max: 255 }];
        framings.extend(FORMATS.map(|format| Framing::Prefixed { format, max: 255 }));
        for framing in framings {
            for message in [&b""[..], b"x", &[7; 127], &[7; 128], &[7; 255]] {
                p.client.write_message(&framing, message).unwrap();
                p.client.write_message(&framing, b"next").unwrap();
                assert_eq!(p.accepted.read_message(&framing).unwrap(), message, "{framing:?}");
                assert_eq!(p.accepted.read_message(&framing).unwrap(), b"next", "{framing:?}");
            }
        }
        // These are written unchanged.
        for (framing, message) in
            [(Framing::Fixed { len: 4 }, b"four"), (MQTT, b"\x10\x02ab"), (Framing::Raw, b"some")]
        {
            p.client.write_message(&framing, message).unwrap();
            assert_eq!(p.accepted.read_message(&framing).unwrap(), message, "{framing:?}");
        }
        let short = Framing::Prefixed { format: U8, max: 255 };
        let lines = Framing::Lines { max: 255 };
        let failure = fails(p.client.write_message(&short, &[0; 256]), ErrorKind::InvalidArgument);
        assert!(failure.message.contains("256 bytes"), "{failure:?}");
        let failure = fails(p.client.write_message(&lines, b"a\nb"), ErrorKind::InvalidArgument);
        assert!(failure.message.contains("the line contains LF"), "{failure:?}");
        for (framing, message, why) in messages_that_do_not_return() {
            let failure =
                fails(p.client.write_message(&framing, message), ErrorKind::InvalidArgument);
            assert!(failure.message.contains(why), "{failure:?}");
        }
        let (long, max) = (vec![b'l'; 1 << 20], 1 << 20);
        for format in [U24Le, U32Be, U64Be, VarintMqtt, VarintProtobuf] {
            let framing = Framing::Prefixed { format, max };
            std::thread::scope(|scope| {
                scope.spawn(|| p.client.write_message(&framing, &long).unwrap());
                assert!(p.accepted.read_message(&framing).unwrap() == long, "{framing:?}");
            });
        }
    }
}

/// V6, I1: in non-blocking mode a read of an incomplete message would block, at each position where
/// the stream may be split. The received bytes are kept, and the messages are complete when the
/// others arrive.
fn message_split_at_each_position_would_block_and_keeps_the_bytes<A: Api>() {
    for case in cases() {
        let (framing, stream) = (&case.framing, case.stream());
        let (client, mut peer) = with_raw_peer::<A>(&[]);
        let read = |expected: &[(Vec<u8>, Vec<u8>)], at| {
            client.set_nonblocking(false).unwrap();
            for (_, message) in expected {
                assert_eq!(&client.read_message(framing).unwrap(), message, "{framing:?} {at}");
            }
        };
        for at in 0..=stream.len() {
            let (complete, left) = case.within(at);
            peer.write_all(&stream[..at]).unwrap();
            read(&case.messages[..complete], at);
            client.set_nonblocking(true).unwrap();
            eventually("the rest of the bytes is buffered", || {
                let failure = fails(client.read_message(framing), ErrorKind::WouldBlock);
                assert!(failure.transferred <= left, "{failure:?}");
                client.buffered() == left
            });
            peer.write_all(&stream[at..]).unwrap();
            read(&case.messages[complete..], at);
            assert_eq!(client.buffered(), 0);
        }
    }
}

/// V6, I1: a read that times out within a message keeps the received bytes: another read receives the
/// whole message.
fn message_after_a_timeout_is_received_whole<A: Api>() {
    for case in cases() {
        let (bytes, message) = &case.messages[0];
        let (client, mut peer) = with_raw_peer::<A>(&[]);
        for at in [0, 1, bytes.len() / 2, bytes.len() - 1] {
            let at = at.min(bytes.len() - 1);
            peer.write_all(&bytes[..at]).unwrap();
            client.set_read_timeout(1).unwrap();
            eventually("the bytes are buffered", || {
                fails(client.read_message(&case.framing), ErrorKind::TimedOut);
                client.buffered() == at
            });
            client.set_read_timeout(INFINITE).unwrap();
            peer.write_all(&bytes[at..]).unwrap();
            assert_eq!(&client.read_message(&case.framing).unwrap(), message, "{at}");
        }
    }
}

/// V6: a message that is too long or malformed is an error of its read. Its bytes stay readable, so
/// the program decides about the connection.
fn message_that_is_too_long_or_malformed_keeps_the_bytes<A: Api>() {
    for (framing, bad, kind) in bad_messages() {
        let (client, mut peer) = with_raw_peer::<A>(&[]);
        peer.write_all(bad).unwrap();
        for _ in 0..2 {
            let failure = fails(client.read_message(&framing), kind);
            let limits = ["the maximum of the framing is ", "the buffer of the call has "];
            let names_limit = limits.iter().any(|limit| failure.message.contains(limit));
            assert_eq!(names_limit, kind == ErrorKind::TooLong, "{failure:?}");
            if kind == ErrorKind::Malformed {
                assert!(failure.message.contains("malformed message: the length"), "{failure:?}");
            }
        }
        let mut bytes = vec![0; bad.len()];
        client.read_exact(&mut bytes).unwrap();
        assert_eq!(bytes, bad, "{framing:?}");
        assert_eq!(client.close_reason(), None);
        peer.write_all(b"more").unwrap();
        assert_eq!(client.read_message(&Framing::Raw).unwrap(), b"more");
    }
}

/// V6: an incomplete message at the end of the stream is not a message, and its bytes stay readable.
/// The last line and the last delimited message may end without their delimiter.
fn message_that_is_incomplete_at_the_end_keeps_the_bytes<A: Api>() {
    for case in cases() {
        let (bytes, _) = &case.messages[0];
        let (client, mut peer) = with_raw_peer::<A>(&[]);
        let part = &bytes[..bytes.len() - 1];
        peer.write_all(part).unwrap();
        peer.shutdown(Shutdown::Write).unwrap();
        match case.framing {
            Framing::Lines { .. } => {
                fails(client.read_message(&case.framing), ErrorKind::TooLong);
                let longer = Framing::Lines { max: 4 };
                assert_eq!(client.read_message(&longer).unwrap(), b"one\r");
            }
            Framing::Delimited { .. } => {
                assert_eq!(client.read_message(&case.framing).unwrap(), b"one");
            }
            framing => {
                fails(client.read_message(&framing), ErrorKind::EndOfStream);
                let mut rest = vec![0; part.len()];
                client.read_exact(&mut rest).unwrap();
                assert_eq!(rest, part);
            }
        }
        fails(client.read_message(&case.framing), ErrorKind::EndOfStream);
        fails(client.read_message(&Framing::Raw), ErrorKind::EndOfStream);
    }
}

/// V6, E2: a framing that no message fits is rejected before any byte is read or written.
fn invalid_framing_is_rejected<A: Api>() {
    let p = pair::<A>(Transport::Tcp);
    for (framing, part) in invalid_framings() {
        for failure in [
            fails(p.accepted.read_message(&framing), ErrorKind::InvalidArgument),
            fails(p.client.write_message(&framing, b"x"), ErrorKind::InvalidArgument),
        ] {
            assert!(failure.message.contains(part), "{framing:?}: {failure:?}");
        }
    }
    p.client.write_all(b"first").unwrap();
    assert_eq!(p.accepted.read_message(&Framing::Fixed { len: 5 }).unwrap(), b"first");
}

#[cfg(feature = "serve")]
mod events {
    use std::io::Read;
    use std::net::TcpStream;
    use std::sync::Mutex;
    use std::sync::mpsc::{Receiver, channel};

    use super::*;
    use crate::support::{Connection, On, Serve, Server, Service};
    use keepsock::CloseReason;

    fn connect(server: &impl Fn() -> String) -> TcpStream {
        let peer = TcpStream::connect(server()).unwrap();
        peer.set_nodelay(true).unwrap();
        peer.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        peer
    }

    /// Callbacks that report each message, and None at the end of the stream.
    fn reporting<A: Api>() -> (On<A>, Receiver<Option<Vec<u8>>>) {
        let (tell, told) = channel();
        let (tell, end) = (Mutex::new(tell.clone()), Mutex::new(tell));
        let on = On::<A> {
            data: Some(Box::new(move |_, message| {
                tell.lock().unwrap().send(Some(message.to_vec())).unwrap();
            })),
            finished: Some(Box::new(move |connection| {
                end.lock().unwrap().send(None).unwrap();
                connection.close();
            })),
            ..On::default()
        };
        (on, told)
    }

    /// V6: the event loop delivers the same whole messages at each position where the stream may be
    /// split. At the end of the stream it discards an incomplete message.
    pub fn events_of_message_split_at_each_position_are_whole<A: Api>() {
        for case in cases() {
            let (framing, stream) = (case.framing, case.stream());
            let server = A::listen("127.0.0.1:0", &[]).unwrap();
            let (on, told) = reporting::<A>();
            let service = server.serve_events(&[Serve::Framing(framing)], on).unwrap();
            let mut sent = 0;
            for at in 0..=stream.len() {
                let mut peer = connect(&|| server.endpoint());
                let mut write = |bytes: &[u8]| {
                    peer.write_all(bytes).unwrap();
                    sent += bytes.len() as i64;
                    // The event loop reads the parts separately.
                    eventually("the bytes are received", || service.stats().received == sent);
                };
                write(&stream[..at]);
                write(&stream[at..]);
                // A length of more bytes than follow.
                let cut: &[u8] = if framing == MQTT { b"\x30\x02x" } else { b"" };
                write(cut);
                peer.shutdown(Shutdown::Write).unwrap();
                let mut messages = Vec::new();
                while let Some(message) = told.recv_timeout(Duration::from_secs(10)).unwrap() {
                    messages.push(message);
                }
                let expected: Vec<_> = case.messages.iter().map(|(_, m)| m.clone()).collect();
                assert_eq!(messages, expected, "{framing:?} {at}");
                assert_eq!(peer.read(&mut [0; 8]).unwrap(), 0);
            }
        }
    }

    /// V6: a message that is too long or malformed resets its connection with a clear close reason,
    /// after the messages before it, and no other connection.
    pub fn events_of_bad_message_end_only_its_connection<A: Api>() {
        for (framing, bad, kind) in bad_messages() {
            let reason = match kind {
                ErrorKind::TooLong => CloseReason::MessageTooLong,
                _ => CloseReason::MessageMalformed,
            };
            let server = A::listen("127.0.0.1:0", &[]).unwrap();
            let (mut on, told) = reporting::<A>();
            let (closed, closes) = channel();
            let closed = Mutex::new(closed);
            on.close = Some(Box::new(move |_, why| closed.lock().unwrap().send(why).unwrap()));
            let service = server.serve_events(&[Serve::Framing(framing)], on).unwrap();
            let (mut one, mut other) =
                (connect(&|| server.endpoint()), connect(&|| server.endpoint()));
            eventually("both are accepted", || service.connections() == 2);
            // A valid message, if the framing has short ones.
            let good: &[u8] = match framing {
                Framing::Lines { .. } => b"ok\n",
                Framing::Delimited { .. } => b"ok\0",
                Framing::Prefixed { format: U8, .. } => b"\x02ok",
                Framing::Prefixed { format: VarintMqtt | VarintProtobuf, .. } => b"\x02ok",
                framing if framing == MQTT => b"\x10\x02ok",
                _ => b"",
            };
            one.write_all(&[good, bad].concat()).unwrap();
            assert_eq!(
                closes.recv_timeout(Duration::from_secs(10)).unwrap(),
                reason,
                "{framing:?}"
            );
            let err = one.read(&mut [0; 8]).unwrap_err();
            assert_eq!(err.kind(), std::io::ErrorKind::ConnectionReset);
            other.write_all(good).unwrap();
            for _ in 0..if good.is_empty() { 0 } else { 2 } {
                let message = told.recv_timeout(Duration::from_secs(10)).unwrap().unwrap();
                assert!(message.ends_with(b"ok"), "{framing:?}: {message:?}");
            }
            eventually("one connection is left", || service.connections() == 1);
            assert_eq!(service.stats().ends, [(reason, 1)]);
            assert!(told.try_recv().is_err());
        }
    }

    /// V6, E2: a framing that no message fits is rejected, and the server stays open.
    pub fn events_with_invalid_framing_are_rejected<A: Api>() {
        let server = A::listen("127.0.0.1:0", &[]).unwrap();
        for (framing, part) in invalid_framings() {
            let outcome = server.serve_events(&[Serve::Framing(framing)], On::default());
            let failure = fails(outcome, ErrorKind::InvalidArgument);
            assert!(failure.message.contains(part), "{framing:?}: {failure:?}");
        }
        drop(server.serve_events(&[Serve::Framing(MQTT)], On::default()).unwrap());
    }

    /// V6: an event-driven service rejects what the client would not receive unchanged, as one buffer and
    /// as several.
    pub fn send_of_a_message_that_does_not_return_is_rejected<A: Api>() {
        for (framing, message, why) in messages_that_do_not_return() {
            let server = A::listen("127.0.0.1:0", &[]).unwrap();
            let (opened, conns) = channel();
            let opened = Mutex::new(opened);
            let open = move |conn: &A::Connection| {
                let (first, last) = message.split_at(message.len() / 2);
                let sent = [conn.send(message), conn.send_slices(&[first, last])];
                opened.lock().unwrap().send(sent).unwrap();
            };
            let on = On { open: Some(Box::new(open)), ..On::default() };
            let service = server.serve_events(&[Serve::Framing(framing)], on).unwrap();
            let _client = A::connect(&server.endpoint(), &[]).unwrap();
            for sent in conns.recv_timeout(Duration::from_secs(20)).unwrap() {
                let failure = fails(sent, ErrorKind::InvalidArgument);
                assert!(failure.message.contains(why), "{failure:?}");
            }
            drop(service);
        }
    }
}

#[cfg(feature = "serve")]
use events::{
    events_of_bad_message_end_only_its_connection,
    events_of_message_split_at_each_position_are_whole, events_with_invalid_framing_are_rejected,
    send_of_a_message_that_does_not_return_is_rejected,
};
