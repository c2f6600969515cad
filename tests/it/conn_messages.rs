//! The framing and the queue limit of one connection.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use keepsock::LengthFormat::{U8, U16Be};
use keepsock::{CloseReason, ErrorKind, Framing, OverflowPolicy, Sockopt};

use crate::serve_events::{What, at, closes, listen, raw, reporting, some, until};
use crate::support::*;
use What::{Close, Open};

both_apis![
    set_framing_in_a_callback_applies_after_its_message,
    set_framing_in_on_open_applies_to_the_first_byte,
    set_framing_with_pause_applies_to_the_buffered_bytes,
    set_framing_before_the_end_of_stream_delivers_the_rest,
    set_framing_from_another_thread_applies_to_a_partial_message,
    set_framing_from_another_thread_in_a_stream_loses_nothing,
    set_framing_applies_to_sent_messages_and_broadcasts,
    setters_of_a_connection_that_is_closing_are_rejected,
    set_queue_limit_below_the_queue_applies_the_policy,
    set_queue_limit_below_replies_keeps_them,
    set_queue_limit_of_one_connection_limits_its_messages,
];

const LINES: Framing = Framing::Lines { max: 1000 };
const SHORT: Framing = Framing::Prefixed { format: U8, max: 255 };
const LONG: Framing = Framing::Prefixed { format: U16Be, max: 1000 };
const TEN: Duration = Duration::from_secs(10);

/// An event of a connection with a changing framing.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Event {
    Message(Vec<u8>),
    Eof,
    Closed(CloseReason),
}
use Event::{Closed, Eof, Message};

/// Callbacks that report events. A message that is the name of a framing sets it.
fn switching<A: Api>() -> (On<A>, Receiver<Event>) {
    let (events, told) = channel();
    let events = Arc::new(Mutex::new(events));
    let report = |events: &Arc<Mutex<std::sync::mpsc::Sender<Event>>>| {
        let events = events.clone();
        move |event| drop(events.lock().unwrap().send(event))
    };
    let (data, eof, close) = (report(&events), report(&events), report(&events));
    let on = On::<A> {
        data: Some(Box::new(move |c, message| {
            let framing = match message {
                b"lines" => Some(LINES),
                b"short" => Some(SHORT),
                b"long" => Some(LONG),
                b"three" => Some(Framing::Fixed { len: 3 }),
                b"raw" => Some(Framing::Raw),
                _ => None,
            };
            if let Some(framing) = framing {
                c.set_framing(framing).unwrap();
            }
            data(Message(message.to_vec()));
        })),
        finished: Some(Box::new(move |c| {
            eof(Eof);
            c.close();
        })),
        close: Some(Box::new(move |_, reason| close(Closed(reason)))),
        ..On::default()
    };
    (on, told)
}

fn next(told: &Receiver<Event>) -> Event {
    told.recv_timeout(TEN).unwrap()
}

fn message(bytes: &[u8]) -> Event {
    Message(bytes.to_vec())
}

/// V6: a framing that a callback sets applies to the bytes after its message, however the stream is
/// split.
fn set_framing_in_a_callback_applies_after_its_message<A: Api>() {
    const STREAM: &[u8] =
        b"a\r\nshort\n\x03one\0\x04long\0\x03two\0\x05linesb\nthree\n123456raw\x05\n";
    let expected: [&[u8]; 12] = [
        b"a", b"short", b"one", b"", b"long", b"two", b"lines", b"b", b"three", b"123", b"456",
        b"raw",
    ];
    let server = listen::<A>(&[]);
    let (on, told) = switching::<A>();
    let service = server.serve_events(&[Serve::Framing(LINES)], on).unwrap();
    let mut sent = 0;
    for at_byte in 0..=STREAM.len() {
        let mut client = raw(&at::<A>(&server));
        for part in [&STREAM[..at_byte], &STREAM[at_byte..]] {
            client.write_all(part).unwrap();
            sent += part.len() as i64;
            eventually("the bytes are received", || service.stats().received == sent);
        }
        client.shutdown(Shutdown::Write).unwrap();
        for each in expected {
            assert_eq!(next(&told), message(each), "{at_byte}");
        }
        // Without framing, the rest arrives in any parts.
        let mut rest = Vec::new();
        loop {
            match next(&told) {
                Message(bytes) => rest.extend(bytes),
                event => break assert_eq!(event, Eof),
            }
        }
        assert_eq!(rest, b"\x05\n", "{at_byte}");
        assert_eq!(next(&told), Closed(CloseReason::PeerClosed));
    }
}

/// V6: a framing that on_open sets applies to the first byte, and to this connection only.
fn set_framing_in_on_open_applies_to_the_first_byte<A: Api>() {
    let server = listen::<A>(&[]);
    let (mut on, told) = switching::<A>();
    let opened = std::sync::atomic::AtomicU32::new(0);
    on.open = Some(Box::new(move |c| {
        if opened.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0 {
            c.set_framing(SHORT).unwrap();
        }
    }));
    let service = server.serve_events(&[Serve::Framing(LINES)], on).unwrap();
    let mut client = raw(&at::<A>(&server));
    client.write_all(b"\x03one").unwrap();
    assert_eq!(next(&told), message(b"one"));
    let mut other = raw(&at::<A>(&server));
    other.write_all(b"\x03one\n").unwrap();
    assert_eq!(next(&told), message(b"\x03one"));
    assert_eq!(service.connections(), 2);
}

/// V6: bytes that a paused connection has buffered get the framing that is set during the pause.
fn set_framing_with_pause_applies_to_the_buffered_bytes<A: Api>() {
    let server = listen::<A>(&[]);
    let (mut on, told) = switching::<A>();
    let (kept, paused) = channel();
    let kept = Mutex::new(kept);
    let report = on.data.take().unwrap();
    on.data = Some(Box::new(move |c, message| {
        report(c, message);
        if message == b"pause" {
            c.pause();
            kept.lock().unwrap().send(c.clone()).unwrap();
        }
    }));
    let _service = server.serve_events(&[Serve::Framing(LINES)], on).unwrap();
    let mut client = raw(&at::<A>(&server));
    client.write_all(b"pause\n\x03one\x02").unwrap();
    assert_eq!(next(&told), message(b"pause"));
    let connection = paused.recv_timeout(TEN).unwrap();
    // The last one counts.
    connection.set_framing(LONG).unwrap();
    connection.set_framing(SHORT).unwrap();
    assert_eq!(told.recv_timeout(Duration::from_millis(50)), Err(RecvTimeoutError::Timeout));
    connection.resume();
    assert_eq!(next(&told), message(b"one"));
    client.write_all(b"ab").unwrap();
    assert_eq!(next(&told), message(b"ab"));
}

/// V6: bytes that arrive together with the end of the stream get the new framing before the end is
/// reported; also the beginning of a message that would be dropped in the old framing.
fn set_framing_before_the_end_of_stream_delivers_the_rest<A: Api>() {
    let server = listen::<A>(&[]);
    let (on, told) = switching::<A>();
    let _service = server.serve_events(&[Serve::Framing(SHORT)], on).unwrap();
    for (stream, expected) in [
        (&b"\x03raw\x05rest"[..], vec![message(b"raw"), message(b"\x05rest")]),
        (b"\x05linesone\ntwo", vec![message(b"lines"), message(b"one"), message(b"two")]),
        // The beginning of a message is dropped in the new framing.
        (b"\x05linesshort\n\x05rest", vec![message(b"lines"), message(b"short")]),
    ] {
        let mut client = raw(&at::<A>(&server));
        client.write_all(stream).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        for event in expected {
            assert_eq!(next(&told), event, "{stream:?}");
        }
        assert_eq!(next(&told), Eof, "{stream:?}");
        assert_eq!(next(&told), Closed(CloseReason::PeerClosed));
    }
}

/// V6: from another thread, the beginning of a message that the loop has buffered gets the new
/// framing, without more bytes.
fn set_framing_from_another_thread_applies_to_a_partial_message<A: Api>() {
    let server = listen::<A>(&[]);
    let (mut on, told) = switching::<A>();
    let (kept, opened) = channel();
    let kept = Mutex::new(kept);
    on.open = Some(Box::new(move |c| kept.lock().unwrap().send(c.clone()).unwrap()));
    let service = server.serve_events(&[Serve::Framing(LINES)], on).unwrap();
    let mut client = raw(&at::<A>(&server));
    let connection = opened.recv_timeout(TEN).unwrap();
    let mut sent = 0;
    let mut write = |bytes: &[u8]| {
        client.write_all(bytes).unwrap();
        sent += bytes.len() as i64;
        eventually("the bytes are received", || service.stats().received == sent);
    };
    write(b"\x03one\x03t");
    connection.set_framing(SHORT).unwrap();
    assert_eq!(next(&told), message(b"one"));
    connection.set_framing(Framing::Raw).unwrap();
    assert_eq!(next(&told), message(b"\x03t"));
    write(b"wo\n");
    assert_eq!(next(&told), message(b"wo\n"));
    connection.set_framing(LINES).unwrap();
    write(b"third");
    connection.set_framing(Framing::Delimited { delimiter: b';', max: 10 }).unwrap();
    write(b";");
    assert_eq!(next(&told), message(b"third"));
    // The buffered bytes are too long for the new framing.
    write(b"four");
    connection.set_framing(Framing::Lines { max: 3 }).unwrap();
    assert_eq!(next(&told), Closed(CloseReason::MessageTooLong));
}

/// V6: changes of the framing by another thread lose and repeat no byte of a stream.
fn set_framing_from_another_thread_in_a_stream_loses_nothing<A: Api>() {
    const LEN: usize = 2_000_000;
    let server = listen::<A>(&[]);
    let (mut on, _told) = reporting::<A>();
    let (kept, opened) = channel();
    let kept = Mutex::new(kept);
    on.open = Some(Box::new(move |c| kept.lock().unwrap().send(c.clone()).unwrap()));
    let received = Arc::new(Mutex::new(Vec::<u8>::new()));
    let bytes = received.clone();
    // No message contains a delimiter, so the messages together are the stream without delimiters.
    on.data = Some(Box::new(move |_, message| {
        bytes.lock().unwrap().extend(message.iter().filter(|byte| **byte != b'\n'));
    }));
    let _service = server.serve_events(&[], on).unwrap();
    let mut client = raw(&at::<A>(&server));
    let connection = opened.recv_timeout(TEN).unwrap();
    let stream: Vec<u8> = (0..LEN).map(|n| b'a' + (n % 23) as u8).collect();
    let mut with_lines = Vec::new();
    for (n, line) in stream.chunks(997).enumerate() {
        with_lines.extend(line);
        with_lines.extend(&b"\n\n"[..n % 3]);
    }
    let sender = std::thread::spawn(move || {
        client.write_all(&with_lines).unwrap();
        client
    });
    let all = [
        Framing::Raw,
        Framing::Lines { max: 1 << 20 },
        Framing::Fixed { len: 7 },
        Framing::Raw,
        Framing::Fixed { len: 100_000 },
        Framing::Delimited { delimiter: b'\n', max: 1 << 20 },
    ];
    let mut rounds = 0;
    while !sender.is_finished() || rounds < 100 {
        connection.set_framing(all[rounds % all.len()]).unwrap();
        rounds += 1;
    }
    let _client = sender.join().unwrap();
    connection.set_framing(Framing::Raw).unwrap();
    eventually("everything is delivered", || received.lock().unwrap().len() >= LEN);
    assert!(*received.lock().unwrap() == stream, "the bytes differ after {rounds} changes");
}

/// V3, V6: sent messages and broadcasts have the framing of each connection. A broadcast that does not
/// fit the framing of a connection is not sent to it, and counted.
fn set_framing_applies_to_sent_messages_and_broadcasts<A: Api>() {
    let server = listen::<A>(&[]);
    let (on, told) = switching::<A>();
    let service = server.serve_events(&[Serve::Framing(LINES)], on).unwrap();
    let mut clients = Vec::new();
    for name in ["lines", "short", "raw", "three"] {
        let mut client = raw(&at::<A>(&server));
        client.write_all(format!("{name}\n").as_bytes()).unwrap();
        assert_eq!(next(&told), message(name.as_bytes()));
        clients.push(client);
    }
    let sent = |sent, rejected| Sent { sent, cut: 0, dropped: 0, rejected };
    let received = |client: usize, bytes: &[u8]| {
        assert_eq!(some(&clients[client], bytes.len()), bytes, "{client}");
    };
    assert_eq!(service.push(None, b"new").unwrap(), sent(4, 0));
    received(0, b"new\n");
    received(1, b"\x03new");
    received(2, b"new");
    received(3, b"new");
    // No line, and not three bytes: two framings accept it.
    assert_eq!(service.push(None, b"a\nbc").unwrap(), sent(2, 2));
    received(1, b"\x04a\nbc");
    received(2, b"a\nbc");
    let mut others = clients.split_off(1);
    drop(others.drain(..2));
    eventually("the connections are closed", || service.connections() == 2);
    // No connection accepts it, so the error is that of the framing of the service.
    fails(service.push(None, b"a\nbc"), ErrorKind::InvalidArgument);
    drop(clients);
    eventually("the connection is closed", || service.connections() == 1);
    assert_eq!(service.push(None, b"four").unwrap(), sent(0, 1));
    drop(others);
}

/// E2, K8, V6: a framing or a queue limit that is not valid is rejected, and the connection keeps the
/// old one. Each setter is rejected once the connection is closing, when it has no effect.
fn setters_of_a_connection_that_is_closing_are_rejected<A: Api>() {
    let server = listen::<A>(&[]);
    let (mut on, told) = switching::<A>();
    let report = on.data.take().unwrap();
    on.data = Some(Box::new(move |c, message| {
        fails(c.set_framing(Framing::Lines { max: 0 }), ErrorKind::InvalidArgument);
        fails(c.set_framing(Framing::Fixed { len: 0 }), ErrorKind::InvalidArgument);
        fails(c.set_queue_limit(88), ErrorKind::InvalidArgument);
        if message == b"close" {
            c.close();
            let tuple = c.name();
            let policy = c.set_overflow_policy(OverflowPolicy::DropOldest);
            let all = [
                c.set_framing(SHORT),
                c.set_queue_limit(1000),
                policy,
                c.set_idle_timeout(1000),
                c.set_dead_after(5000),
                c.set_heartbeat(b"x", 1000),
                c.set_heartbeat_timeout(INFINITE),
                c.set_keepalive(1000, 1000, 3),
                c.disable_keepalive(),
                c.set_sockopt(Sockopt::Nodelay, 0),
            ];
            for late in all {
                let text = fails(late, ErrorKind::Closed).message;
                assert!(text.contains(&tuple), "{text}");
            }
        }
        report(c, message);
    }));
    let _service = server.serve_events(&[Serve::Framing(LINES)], on).unwrap();
    let mut client = raw(&at::<A>(&server));
    client.write_all(b"\x03one\nclose\n").unwrap();
    assert_eq!(next(&told), message(b"\x03one"));
    assert_eq!(next(&told), message(b"close"));
    assert_eq!(next(&told), Closed(CloseReason::Local));
}

/// A connection whose peer does not read, with pushed messages of 1,000 bytes in its queue.
fn queued<A: Api>(
    server: &A::Server,
    options: &[Serve],
) -> (A::Service, TcpStream, Receiver<What>, A::Connection) {
    let (mut on, told) = reporting::<A>();
    let (kept, opened) = channel();
    let kept = Mutex::new(kept);
    let report = on.open.take().unwrap();
    on.open = Some(Box::new(move |c| {
        report(c);
        kept.lock().unwrap().send(c.clone()).unwrap();
    }));
    let service = server.serve_events(options, on).unwrap();
    let client = raw(&at::<A>(server));
    let connection = opened.recv_timeout(TEN).unwrap();
    until(&told, |what| matches!(what, Open(_)));
    while connection.queued() < 200_000 {
        connection.send(&[7; 1000]).unwrap();
    }
    (service, client, told, connection)
}

/// V3: a limit below the queued messages applies at once: the connection is reset, or drops the oldest
/// messages. The memory stays under the limit.
fn set_queue_limit_below_the_queue_applies_the_policy<A: Api>() {
    let server = listen::<A>(&[]);
    let (service, _client, told, connection) = queued::<A>(&server, &[]);
    // A limit above the queue changes nothing.
    connection.set_queue_limit(300_000).unwrap();
    fails(connection.set_queue_limit(100_000), ErrorKind::Stalled);
    assert_eq!(connection.queued(), 0);
    assert!(connection.send(b"late").is_err());
    let Close(_, reason) = until(&told, closes) else { unreachable!() };
    assert_eq!(reason, CloseReason::SlowConsumer);
    drop(service);

    let server = listen::<A>(&[]);
    let (service, mut client, _told, connection) = queued::<A>(&server, &[]);
    connection.set_overflow_policy(OverflowPolicy::DropOldest).unwrap();
    connection.set_queue_limit(100_000).unwrap();
    let left = connection.queued();
    assert!((90_000..=100_000).contains(&left), "{left}");
    let stats = service.stats();
    assert!(stats.dropped_messages > 90 && stats.dropped > 90_000, "{stats:?}");
    for _ in 0..200 {
        connection.send(&[8; 1000]).unwrap();
        assert!(connection.queued() <= 100_000);
    }
    // The peer receives whole messages, and the last message is the newest.
    connection.shutdown_write();
    let mut all = Vec::new();
    client.read_to_end(&mut all).unwrap();
    assert_eq!(all.len() % 1000, 0);
    assert!(all.chunks(1000).all(|m| m == [7; 1000] || m == [8; 1000]));
    assert_eq!(all.last(), Some(&8));
}

/// V3, V8: replies are not subject to a limit: a low limit neither drops them nor resets the
/// connection. The high-water mark follows the limit, so the loop reads less.
fn set_queue_limit_below_replies_keeps_them<A: Api>() {
    const LEN: usize = 8 << 20;
    let server = listen::<A>(&[]);
    let (mut on, _told) = reporting::<A>();
    let (results, told) = channel();
    let results = Mutex::new(results);
    on.data = Some(Box::new(move |c, _| {
        c.set_overflow_policy(OverflowPolicy::DropOldest).unwrap();
        c.send(&[7; LEN]).unwrap();
        c.send(&[8; 1000]).unwrap();
        c.set_queue_limit(1000).unwrap();
        c.set_overflow_policy(OverflowPolicy::Disconnect).unwrap();
        c.set_queue_limit(500).unwrap();
        c.send(&[9; 1000]).unwrap();
        results.lock().unwrap().send((c.clone(), c.queued())).unwrap();
    }));
    let service = server.serve_events(&[], on).unwrap();
    let mut client = raw(&at::<A>(&server));
    client.write_all(b"x").unwrap();
    let (connection, queued) = told.recv_timeout(TEN).unwrap();
    assert!(queued > 2000, "{queued}");
    let bytes = some(&client, LEN + 2000);
    assert!(bytes[..LEN] == [7; LEN] && bytes[LEN..].ends_with(&[9; 1000]));
    assert_eq!(service.stats().dropped, 0);
    // A pushed message is subject to the limit.
    fails(connection.send(&[1; 1000]), ErrorKind::TooLong);
    connection.send(&[1; 100]).unwrap();
    assert_eq!(some(&client, 100), [1; 100]);
}

/// V3: the queue limit of a connection limits its messages, above and below that of the service.
fn set_queue_limit_of_one_connection_limits_its_messages<A: Api>() {
    let server = listen::<A>(&[]);
    let (mut on, _told) = reporting::<A>();
    let (kept, opened) = channel();
    let kept = Mutex::new(kept);
    on.open = Some(Box::new(move |c| kept.lock().unwrap().send(c.clone()).unwrap()));
    let service = server.serve_events(&[Serve::QueueLimit(10_000)], on).unwrap();
    let open = || {
        let client = raw(&at::<A>(&server));
        (client, opened.recv_timeout(TEN).unwrap())
    };
    let [(low_client, low), (high_client, high), (usual_client, usual)] = [open(), open(), open()];
    low.set_queue_limit(100 + 88).unwrap();
    high.set_queue_limit(20_000).unwrap();
    let text = fails(low.send(&[1; 101]), ErrorKind::TooLong).message;
    assert!(text.contains(&low.name()) && text.contains("queue_limit of 188"), "{text}");
    fails(usual.send(&[1; 15_000]), ErrorKind::TooLong);
    high.send(&[1; 15_000]).unwrap();
    assert_eq!(some(&high_client, 15_000), [1; 15_000]);
    let sent = Sent { sent: 2, cut: 0, dropped: 0, rejected: 1 };
    assert_eq!(service.push(None, &[2; 5000]).unwrap(), sent);
    assert_eq!(some(&high_client, 5000), some(&usual_client, 5000));
    // A message that only the limit of one connection permits.
    let sent = Sent { sent: 1, cut: 0, dropped: 0, rejected: 2 };
    assert_eq!(service.push(None, &[3; 15_000]).unwrap(), sent);
    assert_eq!(some(&high_client, 15_000), [3; 15_000]);
    assert_eq!(service.push(None, &[4; 100]).unwrap().sent, 3);
    assert_eq!(some(&low_client, 100), [4; 100]);
    drop(high_client);
    eventually("the connection is closed", || service.connections() == 2);
    fails(service.push(None, &[3; 15_000]), ErrorKind::TooLong);
}
