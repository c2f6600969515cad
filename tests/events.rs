//! V2: event-driven serving. V3: pushing, groups, caps. V4: limits. V5: drain. V6: framing. V7: what
//! may be called from inside callbacks.
#![cfg(target_os = "linux")]
// Generic functions are tests that Clippy does not know for such.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::*;
use keepsock::{End, ErrorKind, Framing, LengthPrefix};

both_apis!(
    callbacks_in_their_order,
    every_transport,
    lines_and_messages,
    a_message_that_is_too_long_ends_its_connection_alone,
    what_is_sent_is_framed,
    a_half_closed_peer_gets_its_answer,
    a_close_delivers_everything,
    an_abort_resets,
    sends_and_closes_from_anywhere,
    from_inside_callbacks,
    a_panicking_or_silent_callback_harms_nobody_else,
    groups,
    a_slow_client_is_cut,
    a_slow_client_misses_the_oldest,
    pause_and_resume,
    a_paused_peer_that_resets,
    timers,
    heartbeats_and_limits,
    places_and_addresses,
    full_waits_for_a_place,
    drain_tells_everybody,
    drain_cuts_who_stays,
    drain_tells_who_comes_late,
    freeing_ends_everything,
    stopped_by_token_and_close,
    several_threads,
    added_connections,
    connecting_from_inside,
    a_connect_that_fails,
    options_that_do_not_fit,
    what_a_service_knows,
    a_connection_is_described,
    a_timer_at_once_starves_nobody,
    timers_and_room_of_a_half_closed_connection,
    both_ends_are_the_end,
    a_half_closed_peer_that_resets,
    paused_time_is_not_idle,
    closed_while_it_is_full,
    a_timer_after_a_long_callback,
    nothing_comes_after_a_close,
    the_idle_limit_after_the_first_byte,
    a_close_throws_much_away,
    a_change_in_the_middle_of_much_data,
);

/// What callbacks tell, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    Open(u64),
    Data(u64, Vec<u8>),
    Writable(u64),
    Finished(u64),
    Timer(u64),
    Drain(u64),
    Close(u64, End),
    Failed(i32, usize),
}

use What::{Close, Data, Open};

/// Callbacks that tell of everything, and do what the library would.
fn telling<A: Api>() -> (On<A>, Receiver<What>) {
    let (tell, told) = channel();
    let tell = Arc::new(Mutex::new(tell));
    fn to(tell: &Arc<Mutex<Sender<What>>>) -> impl Fn(What) + Send + Sync + use<> {
        let tell = tell.clone();
        move |what| drop(tell.lock().unwrap().send(what))
    }
    let on = On {
        open: Some(with(to(&tell), |tell, c: &A::Connection| tell(Open(c.id())))),
        data: Some(Box::new({
            let tell = to(&tell);
            move |c: &A::Connection, data: &[u8]| tell(Data(c.id(), data.to_vec()))
        })),
        writable: Some(with(to(&tell), |tell, c: &A::Connection| tell(What::Writable(c.id())))),
        finished: Some(with(to(&tell), |tell, c: &A::Connection| {
            tell(What::Finished(c.id()));
            c.close();
        })),
        timer: Some(with(to(&tell), |tell, c: &A::Connection| tell(What::Timer(c.id())))),
        drain: Some(with(to(&tell), |tell, c: &A::Connection| {
            tell(What::Drain(c.id()));
            c.close();
        })),
        close: Some(Box::new({
            let tell = to(&tell);
            move |c: &A::Connection, end| tell(Close(c.id(), end))
        })),
        connect_failed: Some(Box::new({
            let tell = to(&tell);
            move |failure: Failure, data| tell(What::Failed(failure.status, data))
        })),
    };
    (on, told)
}

fn with<T: Send + Sync + 'static, C: 'static>(
    tell: T,
    call: impl Fn(&T, &C) + Send + Sync + 'static,
) -> Box<dyn Fn(&C) + Send + Sync> {
    Box::new(move |c| call(&tell, c))
}

fn next(told: &Receiver<What>) -> What {
    told.recv_timeout(Duration::from_secs(10)).expect("nothing is told")
}

/// Skips what is told until something is.
fn until(told: &Receiver<What>, wanted: impl Fn(&What) -> bool) -> What {
    loop {
        let what = next(told);
        if wanted(&what) {
            return what;
        }
    }
}

fn closes(what: &What) -> bool {
    matches!(what, Close(..))
}

/// A client of the standard library.
fn raw(server: &impl ServerEndpoint) -> TcpStream {
    let stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream
}

trait ServerEndpoint {
    fn address(&self) -> String;
}

struct At(String);

impl ServerEndpoint for At {
    fn address(&self) -> String {
        self.0.clone()
    }
}

fn at<A: Api>(server: &A::Server) -> At {
    At(server.endpoint())
}

fn listen<A: Api>(options: &[Opt<'_, A>]) -> A::Server {
    A::listen("127.0.0.1:0", options).unwrap()
}

fn echoes<A: Api>() -> On<A> {
    On { data: Some(Box::new(|c, data| drop(c.send(data)))), ..On::default() }
}

fn all(mut stream: &TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    bytes
}

fn some(mut stream: &TcpStream, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

/// V2, V7: open first, close last, in between what comes, in order.
fn callbacks_in_their_order<A: Api>() {
    let server = listen::<A>(&[]);
    let (on, told) = telling::<A>();
    let service = server.serve_events(&[], on).unwrap();
    let mut client = raw(&at::<A>(&server));
    let Open(id) = next(&told) else { panic!("no open") };
    client.write_all(b"one").unwrap();
    assert_eq!(next(&told), Data(id, b"one".to_vec()));
    client.write_all(b"two").unwrap();
    assert_eq!(next(&told), Data(id, b"two".to_vec()));
    assert_eq!(service.connections(), 1);
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(next(&told), What::Finished(id));
    assert_eq!(next(&told), Close(id, End::ClosedByPeer));
    assert_eq!(all(&client), b"");
    eventually("it has left", || service.connections() == 0);
    // Its place is another one's.
    let _other = raw(&at::<A>(&server));
    let Open(other) = next(&told) else { panic!("no open") };
    assert_ne!(id, other);
}

/// S3, V2: TCP and Unix, both families on one port.
fn every_transport<A: Api>() {
    let dir = TempDir::new();
    for endpoint in ["127.0.0.1:0", "[::1]:0", "*:0", &dir.endpoint("s")] {
        let server = A::listen(endpoint, &[]).unwrap();
        let _service = server.serve_events(&[], echoes::<A>()).unwrap();
        let to = server.endpoint().replace('*', "127.0.0.1");
        let client = A::connect(&to, &[]).unwrap();
        client.write_all(b"hello").unwrap();
        let mut answer = [0; 5];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"hello", "{endpoint}");
    }
}

/// V6: lines, messages, however they come; the last line may come without its end.
fn lines_and_messages<A: Api>() {
    let long = vec![b'x'; 100_000];
    let framings: [(Framing, Vec<u8>); 3] = [
        (
            Framing::Lines { max: 100_000 },
            [b"one\r\n\ntwo\n".as_slice(), &long, b"\nlast"].concat(),
        ),
        (
            Framing::Delimited { delimiter: 0, max: 100_000 },
            [b"one\0\0two\0".as_slice(), &long, b"\0last"].concat(),
        ),
        (
            Framing::Prefixed { prefix: LengthPrefix::U32Be, max: 100_000 },
            [
                b"\0\0\0\x03one\0\0\0\0\0\0\0\x03two\0\x01\x86\xa0".as_slice(),
                &long,
                b"\0\0\0\x04last",
            ]
            .concat(),
        ),
    ];
    for (framing, stream) in framings {
        for piece in [1, 7, stream.len()] {
            let server = listen::<A>(&[]);
            let (on, told) = telling::<A>();
            let _service = server.serve_events(&[Serve::Framing(framing)], on).unwrap();
            let mut client = raw(&at::<A>(&server));
            client.set_nodelay(true).unwrap();
            let split = if piece == 1 { 40 } else { 0 };
            for byte in stream[..split].chunks(1) {
                client.write_all(byte).unwrap();
            }
            for part in stream[split..].chunks(piece.max(1000)) {
                client.write_all(part).unwrap();
            }
            client.shutdown(Shutdown::Write).unwrap();
            let Open(id) = next(&told) else { panic!("no open") };
            for message in [b"one".as_slice(), b"", b"two", &long, b"last"] {
                assert_eq!(next(&told), Data(id, message.to_vec()), "{framing:?}");
            }
            assert_eq!(next(&told), What::Finished(id), "{framing:?}");
            assert_eq!(next(&told), Close(id, End::ClosedByPeer));
        }
    }
}

/// V6: a line without end, a length that is too large: a clear reason, and nobody else's.
fn a_message_that_is_too_long_ends_its_connection_alone<A: Api>() {
    for (framing, bad, good, answer) in [
        (Framing::Lines { max: 10 }, &[b'x'; 5000][..], &b"fine\n"[..], &b"fine\n"[..]),
        (Framing::Delimited { delimiter: b';', max: 10 }, &[b'x'; 11], b"fine;", b"fine;"),
        (
            Framing::Prefixed { prefix: LengthPrefix::U16Be, max: 10 },
            b"\0\x0b",
            b"\0\x04fine",
            b"\0\x04fine",
        ),
    ] {
        let server = listen::<A>(&[]);
        let (mut on, told) = telling::<A>();
        on.data = Some(Box::new(|c, data| drop(c.send(data))));
        let service = server.serve_events(&[Serve::Framing(framing)], on).unwrap();
        let (mut one, mut other) = (raw(&at::<A>(&server)), raw(&at::<A>(&server)));
        one.write_all(bad).unwrap();
        let Close(_, end) = until(&told, closes) else { unreachable!() };
        assert_eq!(end, End::TooLong, "{framing:?}");
        other.write_all(good).unwrap();
        assert_eq!(some(&other, answer.len()), answer);
        let err = one.read(&mut [0; 8]).unwrap_err();
        assert_eq!(err.kind(), std::io::ErrorKind::ConnectionReset);
        eventually("it has left", || service.connections() == 1);
        assert_eq!(service.stats().ends, [(End::TooLong, 1)]);
    }
}

/// V6: sent and broadcast messages have the marks of their framing; what has none is refused.
fn what_is_sent_is_framed<A: Api>() {
    let framing = Framing::Prefixed { prefix: LengthPrefix::U8, max: 100 };
    let server = listen::<A>(&[]);
    let (mut on, told) = telling::<A>();
    let refused = Arc::new(Mutex::new(None));
    let failure = refused.clone();
    on.data = Some(Box::new(move |c, data| {
        *failure.lock().unwrap() = Some(c.send(&[0; 256]));
        c.send(data).unwrap();
    }));
    let options = [Serve::Framing(framing), Serve::MaxQueued(1000)];
    let service = server.serve_events(&options, on).unwrap();
    let mut client = raw(&at::<A>(&server));
    client.write_all(b"\x02hi").unwrap();
    assert_eq!(some(&client, 3), b"\x02hi");
    assert_eq!(service.broadcast(b"all"), (1, 0));
    assert_eq!(some(&client, 4), b"\x03all");
    let failure = fails(refused.lock().unwrap().take().unwrap(), ErrorKind::InvalidArgument);
    assert!(failure.message.contains("256 bytes"), "{failure:?}");
    fails(service.push(None, &[0; 256]), ErrorKind::InvalidArgument);
    fails(service.push(Some("group"), &[0; 256]), ErrorKind::InvalidArgument);
    drop(told);
    // More than may ever wait: nothing of it is sent.
    let raw_server = listen::<A>(&[]);
    let service = raw_server.serve_events(&[Serve::MaxQueued(1000)], echoes::<A>()).unwrap();
    let failure = fails(service.push(None, &[0; 1000]), ErrorKind::TooLong);
    assert!(failure.message.contains("1000"), "{failure:?}");
    service.push(None, &[0; 1000 - 88]).unwrap();
}

/// I3, V2: who ends its side may still be answered, and then the other side ends, too.
fn a_half_closed_peer_gets_its_answer<A: Api>() {
    const ANSWER: usize = 4 << 20;
    let server = listen::<A>(&[]);
    let (mut on, told) = telling::<A>();
    on.finished = Some(Box::new(|c| {
        c.send(&vec![7; ANSWER]).unwrap();
        c.shutdown_write();
        c.close();
    }));
    let _service = server.serve_events(&[Serve::MaxQueued(8 << 20)], on).unwrap();
    let client = raw(&at::<A>(&server));
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(all(&client).len(), ANSWER);
    let Close(_, end) = until(&told, closes) else { unreachable!() };
    assert_eq!(end, End::ClosedByPeer);
}

/// I3: a close delivers what was sent even while unread input waits, and does not hang on a peer
/// that never ends.
fn a_close_delivers_everything<A: Api>() {
    const REPLY: usize = 3 << 20;
    let server = listen::<A>(&[Opt::CloseTimeout(500)]);
    let (mut on, told) = telling::<A>();
    on.data = Some(Box::new(|c, _| {
        let _ = c.send(&vec![1; REPLY]);
        c.close();
        fails(c.send(b"more"), ErrorKind::Closed);
        assert!(!c.is_open());
    }));
    let _service = server.serve_events(&[Serve::MaxQueued(4 << 20)], on).unwrap();
    let mut client = raw(&at::<A>(&server));
    // More than is read at once, so that input is left when it closes.
    client.write_all(&[0; 300_000]).unwrap();
    assert_eq!(all(&client).len(), REPLY);
    drop(client);
    let Close(_, end) = until(&told, closes) else { unreachable!() };
    assert_eq!(end, End::ClosedHere);
    // This one neither reads nor ends.
    let mut stuck = raw(&at::<A>(&server));
    stuck.write_all(b"x").unwrap();
    let (_, took) = timed(|| until(&told, closes));
    assert!(took > Duration::from_millis(300) && took < Duration::from_secs(5), "{took:?}");
}

fn an_abort_resets<A: Api>() {
    let server = listen::<A>(&[]);
    let (mut on, told) = telling::<A>();
    on.data = Some(Box::new(|c, _| {
        c.abort();
        fails(c.send(b"more"), ErrorKind::Closed);
    }));
    let _service = server.serve_events(&[], on).unwrap();
    let mut client = raw(&at::<A>(&server));
    client.write_all(b"x").unwrap();
    let err = client.read(&mut [0; 8]).unwrap_err();
    assert_eq!(err.kind(), std::io::ErrorKind::ConnectionReset);
    let Close(_, end) = until(&told, closes) else { unreachable!() };
    assert_eq!(end, End::ClosedHere);
    // And one that the peer resets.
    let client = raw(&at::<A>(&server));
    until(&told, |what| matches!(what, Open(_)));
    socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    let Close(_, end) = until(&told, closes) else { unreachable!() };
    assert_eq!(end, End::ResetByPeer);
}

/// V2, V3: any thread sends to, and closes, any connection.
fn sends_and_closes_from_anywhere<A: Api>() {
    let server = listen::<A>(&[]);
    let (kept, connections) = channel();
    let kept = Mutex::new(kept);
    let closed = Arc::new(AtomicUsize::new(0));
    let count = closed.clone();
    let on = On::<A> {
        open: Some(Box::new(move |c| kept.lock().unwrap().send(c.clone()).unwrap())),
        close: Some(Box::new(move |_, _| {
            count.fetch_add(1, Ordering::Relaxed);
        })),
        ..On::default()
    };
    let _service = server.serve_events(&[], on).unwrap();
    let clients: Vec<_> = (0..8).map(|_| raw(&at::<A>(&server))).collect();
    let connections: Vec<A::Connection> = connections.iter().take(8).collect();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for connection in &connections {
                    for _ in 0..100 {
                        connection.send(b"0123456789").unwrap();
                    }
                }
            });
        }
    });
    for client in &clients {
        // Each message whole, whoever sent it.
        assert_eq!(some(client, 4000), b"0123456789".repeat(400));
    }
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| connections.iter().for_each(Connection::close));
        }
    });
    for client in &clients {
        assert_eq!(all(client), b"");
    }
    drop(clients);
    eventually("every close is told, once", || closed.load(Ordering::Relaxed) == 8);
}

/// V7: close, send, abort, stop, broadcast, timers from inside a callback, on itself and on others.
fn from_inside_callbacks<A: Api>() {
    let server = listen::<A>(&[]);
    let others = Arc::new(Mutex::new(HashMap::<u64, A::Connection>::new()));
    let service: Arc<Mutex<Option<A::Service>>> = Arc::default();
    let (its, all_of_them) = (service.clone(), others.clone());
    let leaving = others.clone();
    let (tell, told) = channel();
    let tell = Mutex::new(tell);
    let on = On::<A> {
        open: Some(Box::new({
            let others = others.clone();
            move |c| drop(others.lock().unwrap().insert(c.id(), c.clone()))
        })),
        data: Some(Box::new(move |c, data| match data {
            b"broadcast" => {
                assert_eq!(its.lock().unwrap().as_ref().unwrap().broadcast(b"news"), (2, 0));
            }
            b"close the other" => {
                for other in all_of_them.lock().unwrap().values().filter(|o| o.id() != c.id()) {
                    other.close();
                }
            }
            b"stop" => {
                let service = its.lock().unwrap();
                let service = service.as_ref().unwrap();
                service.stop();
                fails(service.drain(0), ErrorKind::WrongState);
                service.wait(0).unwrap();
                c.close();
                c.close();
                c.abort();
            }
            other => panic!("{other:?}"),
        })),
        close: Some(Box::new(move |c, end| {
            fails(c.send(b"no more"), ErrorKind::Closed);
            leaving.lock().unwrap().remove(&c.id());
            tell.lock().unwrap().send(end).unwrap();
        })),
        ..On::default()
    };
    *service.lock().unwrap() = Some(server.serve_events(&[], on).unwrap());
    let (mut one, other) = (raw(&at::<A>(&server)), raw(&at::<A>(&server)));
    eventually("both are there", || others.lock().unwrap().len() == 2);
    one.write_all(b"broadcast").unwrap();
    assert_eq!((some(&one, 4), some(&other, 4)), (b"news".to_vec(), b"news".to_vec()));
    one.write_all(b"close the other").unwrap();
    assert_eq!(all(&other), b"");
    drop(other);
    assert_eq!(told.recv_timeout(Duration::from_secs(10)).unwrap(), End::ClosedHere);
    one.write_all(b"stop").unwrap();
    assert_eq!(told.recv_timeout(Duration::from_secs(10)).unwrap(), End::ClosedHere);
    let service = service.lock().unwrap().take();
    drop(service);
}

/// E3, V7: a callback that panics has its connection reset; the loop goes on.
fn a_panicking_or_silent_callback_harms_nobody_else<A: Api>() {
    if A::NUMBER == 2 {
        return; // a panic cannot leave C
    }
    let server = listen::<A>(&[]);
    let (mut on, told) = telling::<A>();
    on.data = Some(Box::new(|c, data| {
        assert_ne!(data, b"bad", "as the test wants");
        c.send(data).unwrap();
    }));
    let _service = server.serve_events(&[], on).unwrap();
    let (mut one, mut other) = (raw(&at::<A>(&server)), raw(&at::<A>(&server)));
    one.write_all(b"bad").unwrap();
    assert_eq!(one.read(&mut [0; 8]).unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    other.write_all(b"good").unwrap();
    assert_eq!(some(&other, 4), b"good");
    let Close(_, end) = until(&told, closes) else { unreachable!() };
    assert_eq!(end, End::ClosedHere);
}

/// V3: to a group, and not to others; who leaves, or is over, is not in it.
fn groups<A: Api>() {
    let server = listen::<A>(&[]);
    let on = On::<A> {
        data: Some(Box::new(|c, line| {
            let (verb, group) = line.split_at(1);
            let group = std::str::from_utf8(group).unwrap();
            match verb {
                b"+" => c.join(group).unwrap(),
                b"-" => c.leave(group),
                _ => {}
            }
            c.send(b"ok").unwrap();
        })),
        close: Some(Box::new(|c, _| drop(fails(c.join("late"), ErrorKind::Closed)))),
        ..On::default()
    };
    let options = [Serve::Framing(Framing::Lines { max: 100 })];
    let service = server.serve_events(&options, on).unwrap();
    let mut clients: Vec<_> = (0..3).map(|_| raw(&at::<A>(&server))).collect();
    let mut say = |who: usize, what: &str| {
        clients[who].write_all(format!("{what}\n").as_bytes()).unwrap();
        assert_eq!(some(&clients[who], 3), b"ok\n");
    };
    say(0, "+red");
    say(1, "+red");
    say(1, "+red");
    say(1, "+blue");
    say(2, "-red");
    let push = |group, message: &[u8]| service.push(Some(group), message).unwrap().sent;
    assert_eq!((push("red", b"r"), push("blue", b"b"), push("green", b"g")), (2, 1, 0));
    assert_eq!((some(&clients[0], 2), some(&clients[1], 4)), (b"r\n".to_vec(), b"r\nb\n".to_vec()));
    clients[1].write_all(b"-red\n").unwrap();
    assert_eq!(some(&clients[1], 3), b"ok\n");
    assert_eq!(push("red", b"s"), 1);
    assert_eq!(some(&clients[0], 2), b"s\n");
    drop(clients.remove(0));
    eventually("it has left", || service.connections() == 2);
    assert_eq!(push("red", b"t"), 0);
    assert_eq!(push("late", b"t"), 0);
}

/// A service whose one client takes nothing, and as much sent as makes its kernel full.
fn stuck<A: Api>(server: &A::Server, options: &[Serve]) -> (A::Service, TcpStream, Receiver<What>) {
    let (on, told) = telling::<A>();
    let service = server.serve_events(options, on).unwrap();
    let client = raw(&at::<A>(server));
    until(&told, |what| matches!(what, Open(_)));
    (service, client, told)
}

/// V3: a cap for each client, and the reason when it is reached. Its memory is bounded.
fn a_slow_client_is_cut<A: Api>() {
    const CAP: usize = 256 << 10;
    let server = listen::<A>(&[]);
    let (service, client, told) = stuck::<A>(&server, &[Serve::MaxQueued(CAP)]);
    let message = [1; 10_000];
    let mut sent = 0;
    let result = loop {
        let result = service.push(None, &message).unwrap();
        let queued = service.stats().queued;
        assert!(usize::try_from(queued).unwrap() <= CAP, "{queued}");
        if result.cut > 0 {
            break result;
        }
        sent += 1;
        assert!(sent < 10_000, "it is never cut");
    };
    assert_eq!(result, Sent { sent: 0, cut: 1, dropped: 0 });
    let Close(_, end) = until(&told, closes) else { unreachable!() };
    assert_eq!(end, End::Overrun);
    eventually("it has left", || service.connections() == 0);
    let stats = service.stats();
    assert_eq!(stats.written, stats.sent + stats.dropped, "{stats:?}");
    assert!(stats.dropped_messages > 20 && stats.queued == 0, "{stats:?}");
    assert_eq!(stats.ends, [(End::Overrun, 1)]);
    drop(client);
}

/// V3: whole messages are dropped, the oldest first; the client goes on with what is new.
fn a_slow_client_misses_the_oldest<A: Api>() {
    let server = listen::<A>(&[]);
    let options = [
        Serve::MaxQueued(64 << 10),
        Serve::DropOldest,
        Serve::Framing(Framing::Lines { max: 1000 }),
    ];
    let (service, client, told) = stuck::<A>(&server, &options);
    let mut number = 0;
    let mut dropped = 0;
    while dropped < 1000 {
        let message = format!("{number:0>200}");
        let result = service.push(None, message.as_bytes()).unwrap();
        assert_eq!((result.sent, result.cut), (1, 0));
        dropped += result.dropped;
        number += 1;
        assert!(number < 1_000_000, "nothing is ever dropped");
    }
    let reader = std::io::BufReader::new(&client);
    let mut last = None;
    let mut gaps = 0;
    for line in std::io::BufRead::lines(reader) {
        let line: u64 = line.unwrap().parse().unwrap();
        if let Some(last) = last {
            assert!(line > last, "{line} after {last}");
            gaps += line - last - 1;
        }
        last = Some(line);
        if line == number - 1 {
            break;
        }
    }
    let stats = service.stats();
    assert_eq!(gaps, u64::try_from(stats.dropped_messages).unwrap());
    assert_eq!(stats.written, stats.sent + stats.dropped + stats.queued, "{stats:?}");
    until(&told, |what| matches!(what, What::Writable(_)));
    drop(service);
}

/// V2: who is paused is read no further; the sender's bytes wait, and come when it is resumed.
fn pause_and_resume<A: Api>() {
    for framing in [Framing::Raw, Framing::Lines { max: 10 }] {
        let server = listen::<A>(&[]);
        let (mut on, told) = telling::<A>();
        let (kept, connections) = channel();
        let kept = Mutex::new(kept);
        let (tell, lines) = channel();
        let tell = Mutex::new(tell);
        on.data = Some(Box::new(move |c, data| {
            tell.lock().unwrap().send(data.to_vec()).unwrap();
            c.pause();
            kept.lock().unwrap().send(c.clone()).unwrap();
        }));
        let _service = server.serve_events(&[Serve::Framing(framing)], on).unwrap();
        let mut client = raw(&at::<A>(&server));
        client.write_all(b"one\n").unwrap();
        let connection: A::Connection = connections.recv_timeout(Duration::from_secs(10)).unwrap();
        client.write_all(b"two\n").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let expected = |text: &[u8]| match framing {
            Framing::Raw => [text, b"\n"].concat(),
            _ => text.to_vec(),
        };
        assert_eq!(lines.recv().unwrap(), expected(b"one"));
        assert!(lines.recv_timeout(Duration::from_millis(50)).is_err(), "it is paused");
        connection.resume();
        assert_eq!(lines.recv_timeout(Duration::from_secs(10)).unwrap(), expected(b"two"));
        // The end is told only when it goes on once more.
        connections.recv_timeout(Duration::from_secs(10)).unwrap();
        let id = connection.id();
        assert_eq!(told.try_iter().last(), Some(Open(id)));
        connection.resume();
        assert_eq!(next(&told), What::Finished(id));
        assert_eq!(next(&told), Close(id, End::ClosedByPeer));
    }
}

/// K6: a connection that breaks off while it is paused is over.
fn a_paused_peer_that_resets<A: Api>() {
    let server = listen::<A>(&[]);
    let (mut on, told) = telling::<A>();
    on.open = Some(Box::new(|c| {
        c.pause();
        c.send(b"paused").unwrap();
    }));
    let _service = server.serve_events(&[], on).unwrap();
    let client = raw(&at::<A>(&server));
    assert_eq!(some(&client, 6), b"paused");
    socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    let Close(_, end) = until(&told, closes) else { unreachable!() };
    assert_eq!(end, End::ResetByPeer);
}

/// V2: once, in time, from any thread; a new time replaces the old one.
fn timers<A: Api>() {
    let server = listen::<A>(&[]);
    let (mut on, told) = telling::<A>();
    let (kept, connections) = channel();
    let kept = Mutex::new(kept);
    on.open = Some(Box::new(move |c| {
        c.set_timer(100).unwrap();
        kept.lock().unwrap().send(c.clone()).unwrap();
    }));
    let _service = server.serve_events(&[], on).unwrap();
    let start = Instant::now();
    let _client = raw(&at::<A>(&server));
    let connection: A::Connection = connections.recv_timeout(Duration::from_secs(10)).unwrap();
    let id = connection.id();
    assert_eq!(next(&told), What::Timer(id));
    assert!(start.elapsed() >= Duration::from_millis(90), "{:?}", start.elapsed());
    connection.set_timer(60_000).unwrap();
    let start = Instant::now();
    connection.set_timer(50).unwrap();
    assert_eq!(next(&told), What::Timer(id));
    assert!(start.elapsed() >= Duration::from_millis(45), "{:?}", start.elapsed());
    connection.set_timer(30).unwrap();
    connection.set_timer(INFINITE).unwrap();
    assert!(told.recv_timeout(Duration::from_millis(150)).is_err());
    promptly(Duration::from_millis(150), || {
        timed(|| {
            connection.set_timer(50).unwrap();
            next(&told)
        })
        .1
    });
}

/// K5, V4: heartbeats while nothing is written; who is silent, or never speaks, is ended, and
/// why; who speaks now and then is not.
fn heartbeats_and_limits<A: Api>() {
    let beat = || Opt::<A>::Heartbeat(b"PING\n", 100);
    for (options, speaks, end) in [
        (vec![Opt::FirstByteLimit(150), Opt::IdleLimit(60_000)], false, Some(End::IdleLimit)),
        (vec![Opt::FirstByteLimit(150)], true, None),
        (vec![Opt::IdleLimit(150)], false, Some(End::IdleLimit)),
        (vec![beat(), Opt::IdleLimit(350)], false, Some(End::HeartbeatMissed)),
        (vec![beat(), Opt::IdleLimit(350)], true, None),
    ] {
        let beats = matches!(options[0], Opt::Heartbeat(..));
        let server = listen::<A>(&options);
        let (on, told) = telling::<A>();
        let _service = server.serve_events(&[], on).unwrap();
        let mut client = raw(&at::<A>(&server));
        let Open(id) = next(&told) else { panic!("no open") };
        let start = Instant::now();
        if speaks {
            while start.elapsed() < Duration::from_millis(600) {
                client.write_all(b".").unwrap();
                assert_eq!(next(&told), Data(id, b".".to_vec()));
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        match end {
            Some(end) => {
                assert_eq!(until(&told, closes), Close(id, end));
                let took = start.elapsed();
                assert!(took >= Duration::from_millis(130), "{took:?}");
            }
            None => assert!(told.try_recv().is_err()),
        }
        if beats {
            assert_eq!(some(&client, 10), b"PING\nPING\n");
        } else if end.is_some() {
            assert_eq!(all(&client), b"", "ended in order");
        }
    }
}

/// V4: refused where all places are taken, or its address has its share, or may not connect.
fn places_and_addresses<A: Api>() {
    let try_from = |address: &str, server: &A::Server| {
        let local = format!("{address}:0");
        A::connect(&server.endpoint(), &[Opt::Local(&local), Opt::CloseTimeout(0)])
    };
    let from = |address: &str, server: &A::Server| try_from(address, server).unwrap();
    // A reset may come before the client has looked at its handshake.
    let refused = |address: &str, server: &A::Server| {
        fails(try_from(address, server).and_then(|c| c.read(&mut [0; 1])), ErrorKind::Reset);
    };
    let server = listen::<A>(&[]);
    let options = [Serve::Max(3), Serve::Refuse, Serve::PerAddress(2), Serve::Deny("127.0.0.66")];
    let service = server.serve_events(&options, echoes::<A>()).unwrap();
    let served = |client: &A::Client| {
        client.write_all(b"x").unwrap();
        client.read_exact(&mut [0; 1]).unwrap();
    };
    refused("127.0.0.66", &server);
    let mut inside: Vec<_> = (0..2).map(|_| from("127.0.0.2", &server)).collect();
    inside.iter().for_each(served);
    refused("127.0.0.2", &server);
    inside.push(from("127.0.0.3", &server));
    inside.iter().for_each(served);
    refused("127.0.0.4", &server);
    let counters = server.counters();
    assert_eq!((counters.refused, counters.crowded, counters.denied), (1, 1, 1));
    // Who leaves makes room.
    inside.remove(0).close().unwrap();
    eventually("it has left", || service.connections() == 2);
    served(&from("127.0.0.2", &server));
}

/// V4: a full server lets clients wait, and takes them when others leave.
fn full_waits_for_a_place<A: Api>() {
    let server = listen::<A>(&[]);
    let service = server.serve_events(&[Serve::Max(2)], echoes::<A>()).unwrap();
    let mut clients: Vec<_> = (0..6).map(|_| raw(&at::<A>(&server))).collect();
    eventually("two are served", || service.connections() == 2);
    for client in &mut clients {
        client.write_all(b"x").unwrap();
    }
    clients[..2].iter().for_each(|client| assert_eq!(some(client, 1), b"x"));
    assert_eq!(service.connections(), 2);
    drop(clients.drain(..2));
    for client in clients {
        assert_eq!(some(&client, 1), b"x");
    }
    assert_eq!(server.counters().refused, 0);
}

/// V5: everybody is told, may say goodbye, and is counted; by default it is closed.
fn drain_tells_everybody<A: Api>() {
    for by_default in [false, true] {
        let server = listen::<A>(&[]);
        let (mut on, told) = telling::<A>();
        if by_default {
            on.drain = None;
        } else {
            on.drain = Some(Box::new(|c| {
                c.send(b"bye").unwrap();
                c.close();
            }));
        }
        let service = server.serve_events(&[], on).unwrap();
        let clients: Vec<_> = (0..50).map(|_| raw(&at::<A>(&server))).collect();
        eventually("all are there", || service.connections() == 50);
        let drained = std::thread::scope(|scope| {
            let drained = scope.spawn(|| service.drain(10_000).unwrap());
            for client in clients {
                assert_eq!(all(&client), if by_default { &b""[..] } else { b"bye" });
            }
            drained.join().unwrap()
        });
        assert_eq!(drained, (50, 0));
        let ends = told.try_iter().filter(closes).count();
        assert_eq!(ends, 50);
        service.wait(0).unwrap();
        assert!(TcpStream::connect(server.endpoint()).is_err());
    }
}

/// V5: at the deadline the rest is cut.
fn drain_cuts_who_stays<A: Api>() {
    let server = listen::<A>(&[]);
    let (mut on, told) = telling::<A>();
    on.drain = Some(Box::new(|_| {}));
    let service = server.serve_events(&[], on).unwrap();
    let mut client = raw(&at::<A>(&server));
    until(&told, |what| matches!(what, Open(_)));
    let (drained, took) = timed(|| service.drain(200).unwrap());
    assert_eq!(drained, (0, 1));
    assert!(took >= Duration::from_millis(200) && took < Duration::from_secs(2), "{took:?}");
    let err = client.read(&mut [0; 8]).unwrap_err();
    assert_eq!(err.kind(), std::io::ErrorKind::ConnectionReset);
    assert!(closes(&until(&told, closes)));
    eventually("it has left", || service.connections() == 0);
    assert_eq!(service.drain(0).unwrap(), (0, 0));
}

/// V5: a connection that is added while the service drains is told as well, once, after its open.
fn drain_tells_who_comes_late<A: Api>() {
    const LATE: usize = 5;
    let upstream = listen::<A>(&[]);
    for threads in [1, 3] {
        let server = listen::<A>(&[]);
        let (tell, told) = channel();
        let tell = Arc::new(Mutex::new(tell));
        let telling = |what: fn(u64) -> What| -> OnEvent<A> {
            with(tell.clone(), move |tell: &Arc<Mutex<Sender<What>>>, c: &A::Connection| {
                let what = what(c.id());
                // The first one, which has no data, stays until the others have left.
                if matches!(what, What::Drain(_)) && c.data() == 1 {
                    c.close();
                }
                tell.lock().unwrap().send(what).unwrap();
            })
        };
        let to = tell.clone();
        let on = On::<A> {
            open: Some(telling(Open)),
            drain: Some(telling(What::Drain)),
            close: Some(Box::new(move |c, end| {
                to.lock().unwrap().send(Close(c.id(), end)).unwrap();
            })),
            ..On::default()
        };
        let service = server.serve_events(&[Serve::Threads(threads)], on).unwrap();
        let first = raw(&at::<A>(&server));
        until(&told, |what| matches!(what, Open(_)));
        std::thread::scope(|scope| {
            let drained = scope.spawn(|| service.drain(10_000).unwrap());
            until(&told, |what| matches!(what, What::Drain(_)));
            let _late: Vec<_> = (0..LATE)
                .map(|_| {
                    let client = A::connect(&upstream.endpoint(), &[]).unwrap();
                    assert!(service.add(client, 1).is_ok());
                    upstream.accept().unwrap()
                })
                .collect();
            let mut calls = HashMap::<u64, Vec<What>>::new();
            while calls.values().filter(|calls| calls.iter().any(closes)).count() < LATE {
                let what = next(&told);
                let (Open(id) | What::Drain(id) | Close(id, _)) = what else { unreachable!() };
                calls.entry(id).or_default().push(what);
            }
            for (id, calls) in calls {
                assert_eq!(calls[..2], [Open(id), What::Drain(id)]);
                assert_eq!(calls.len(), 3, "{calls:?}");
            }
            drop(first);
            assert_eq!(drained.join().unwrap().0, LATE as u32 + 1);
        });
    }
}

/// V7: freeing a service ends every connection, with its close callback, and then no callback
/// runs any more.
fn freeing_ends_everything<A: Api>() {
    for threads in [1, 3] {
        let server = listen::<A>(&[]);
        let (on, told) = telling::<A>();
        let service = server.serve_events(&[Serve::Threads(threads)], on).unwrap();
        let clients: Vec<_> = (0..20).map(|_| raw(&at::<A>(&server))).collect();
        eventually("all are there", || service.connections() == 20);
        drop(service);
        let told: Vec<_> = told.try_iter().collect();
        assert_eq!(told.iter().filter(|what| closes(what)).count(), 20);
        for mut client in clients {
            assert!(client.read(&mut [0; 1]).is_err());
        }
    }
}

/// V5, T2: a token that is fired, and a server that is closed, end accepting.
fn stopped_by_token_and_close<A: Api>() {
    let token = A::token();
    let server = A::listen("127.0.0.1:0", &[Opt::Cancel(&token)]).unwrap();
    let service = server.serve_events(&[], echoes::<A>()).unwrap();
    let mut client = raw(&at::<A>(&server));
    client.write_all(b"x").unwrap();
    assert_eq!(some(&client, 1), b"x");
    fails(service.wait(50), ErrorKind::TimedOut);
    token.fire();
    service.wait(10_000).unwrap();
    client.write_all(b"y").unwrap();
    assert_eq!(some(&client, 1), b"y", "connections live on");
    let server = listen::<A>(&[]);
    let service = server.serve_events(&[], echoes::<A>()).unwrap();
    fails(service.wait(20), ErrorKind::TimedOut);
    server.close();
    service.wait(10_000).unwrap();
    fails(server.serve_events(&[], echoes::<A>()), ErrorKind::Closed);
}

/// V2: several loops, each with its share, one open and one close for each connection.
fn several_threads<A: Api>() {
    let server = listen::<A>(&[]);
    let threads = Arc::new(Mutex::new(HashMap::<std::thread::ThreadId, usize>::new()));
    let count = threads.clone();
    let (mut on, told) = telling::<A>();
    on.data = Some(Box::new(move |c, data| {
        *count.lock().unwrap().entry(std::thread::current().id()).or_default() += 1;
        c.send(data).unwrap();
    }));
    let service = server.serve_events(&[Serve::Threads(4)], on).unwrap();
    let mut clients: Vec<_> = (0..40).map(|_| raw(&at::<A>(&server))).collect();
    for client in &mut clients {
        client.write_all(b"x").unwrap();
        assert_eq!(some(client, 1), b"x");
    }
    let shares: Vec<_> = threads.lock().unwrap().values().copied().collect();
    assert_eq!(shares, [10; 4]);
    assert_eq!(service.broadcast(b"all"), (40, 0));
    clients.iter().for_each(|client| assert_eq!(some(client, 3), b"all"));
    drop(clients);
    eventually("all have left", || service.connections() == 0);
    let told: Vec<_> = told.try_iter().collect();
    let opens = told.iter().filter(|what| matches!(what, Open(_))).count();
    assert_eq!((opens, told.iter().filter(|what| closes(what)).count()), (40, 40));
}

/// V2: a connection that was made elsewhere is served as if it had been accepted.
fn added_connections<A: Api>() {
    let upstream = listen::<A>(&[]);
    let server = listen::<A>(&[]);
    let (mut on, told) = telling::<A>();
    on.open = Some(Box::new(|c| {
        assert_eq!(c.data(), 4711);
        c.send(b"hello\n").unwrap();
    }));
    let service = server.serve_events(&[], on).unwrap();
    let client = A::connect(&upstream.endpoint(), &[]).unwrap();
    let accepted = upstream.accept().unwrap();
    assert!(service.add(client, 4711).is_ok());
    assert_eq!(accepted.read_line(64).unwrap(), "hello");
    accepted.write_all(b"answer").unwrap();
    let Data(id, data) = next(&told) else { panic!("no data") };
    assert_eq!(data, b"answer");
    assert_eq!(service.connections(), 1);
    accepted.shutdown_write().unwrap();
    assert_eq!(until(&told, closes), Close(id, End::ClosedByPeer));
    // What was read ahead would be lost.
    let client = A::connect(&upstream.endpoint(), &[]).unwrap();
    let accepted = upstream.accept().unwrap();
    accepted.write_all(b"one\ntwo\n").unwrap();
    assert_eq!(client.read_line(64).unwrap(), "one");
    let (client, failure) = service.add(client, 1).err().unwrap();
    assert!(failure.is(ErrorKind::WrongState), "{failure:?}");
    assert_eq!(client.read_line(64).unwrap(), "two");
    client.close().unwrap();
    let (_, failure) = service.add(client, 1).err().unwrap();
    assert_eq!((failure.status, &*failure.operation), (ErrorKind::Closed.code(), "add"));
    let client = A::connect(&upstream.endpoint(), &[]).unwrap();
    // And a thread for each connection has no place for it.
    let other = listen::<A>(&[]);
    let threads = other.serve(&[], Box::new(|_: &A::Client| {})).unwrap();
    let (_client, failure) = threads.add(client, 1).err().unwrap();
    assert!(failure.is(ErrorKind::WrongState), "{failure:?}");
    fails(threads.push(Some("group"), b"x"), ErrorKind::WrongState);
    fails(threads.connect("127.0.0.1:1", &[], 1), ErrorKind::WrongState);
}

/// V2, V7: a callback connects elsewhere, without waiting.
fn connecting_from_inside<A: Api>() {
    let upstream = listen::<A>(&[]);
    let to = upstream.endpoint();
    let server = listen::<A>(&[]);
    let service: Arc<Mutex<Option<A::Service>>> = Arc::default();
    let its = service.clone();
    let (mut on, told) = telling::<A>();
    on.data = Some(Box::new(move |_, _| {
        let service = its.lock().unwrap();
        service.as_ref().unwrap().connect(&to, &[], 7).unwrap();
    }));
    let (tell, data) = channel();
    let tell = Mutex::new(tell);
    on.open = Some(Box::new(move |c| tell.lock().unwrap().send(c.data()).unwrap()));
    *service.lock().unwrap() = Some(server.serve_events(&[], on).unwrap());
    let mut client = raw(&at::<A>(&server));
    client.write_all(b"go").unwrap();
    let accepted = upstream.accept().unwrap();
    let limit = Duration::from_secs(10);
    assert_eq!((data.recv_timeout(limit).unwrap(), data.recv_timeout(limit).unwrap()), (0, 7));
    accepted.close().unwrap();
    assert!(closes(&until(&told, closes)));
    drop(service.lock().unwrap().take());
}

/// C3: a connect that comes to nothing is told, with what it was for.
fn a_connect_that_fails<A: Api>() {
    let server = listen::<A>(&[]);
    let (on, told) = telling::<A>();
    let service = server.serve_events(&[], on).unwrap();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    service.connect(&closed.to_string(), &[], 3).unwrap();
    assert_eq!(next(&told), What::Failed(ErrorKind::Refused.code(), 3));
    fails(service.connect("nonsense", &[], 3), ErrorKind::InvalidEndpoint);
    drop(service);
    assert!(told.try_recv().is_err());
}

/// E2: what does not fit is refused, and says so.
fn options_that_do_not_fit<A: Api>() {
    let server = listen::<A>(&[]);
    for options in [
        [Serve::Max(0)],
        [Serve::Max((1 << 24) + 1)],
        [Serve::Threads(0)],
        [Serve::Threads(257)],
        [Serve::MaxQueued(88)],
        [Serve::Framing(Framing::Lines { max: 0 })],
        [Serve::Allow("nonsense")],
    ] {
        fails(server.serve_events(&options, echoes::<A>()), ErrorKind::InvalidArgument);
    }
    for options in [
        [Serve::MaxQueued(10)],
        [Serve::DropOldest],
        [Serve::Framing(Framing::Lines { max: 10 })],
        [Serve::Threads(0)],
    ] {
        let handler: Handler<A> = Box::new(|_| {});
        fails(server.serve(&options, handler), ErrorKind::InvalidArgument);
    }
}

/// N1, V2: counters that add up, and a dump for people.
fn what_a_service_knows<A: Api>() {
    let server = listen::<A>(&[]);
    let service = server.serve_events(&[], echoes::<A>()).unwrap();
    let mut client = raw(&at::<A>(&server));
    client.write_all(b"four").unwrap();
    assert_eq!(some(&client, 4), b"four");
    let gone = raw(&at::<A>(&server));
    eventually("both are there", || service.connections() == 2);
    drop(gone);
    eventually("one has left", || service.connections() == 1);
    let stats = service.stats();
    assert_eq!((stats.opened, stats.closed, stats.accepting), (2, 1, true));
    assert_eq!((stats.received, stats.written, stats.sent, stats.queued), (4, 4, 4, 0));
    assert_eq!(stats.ends, [(End::ClosedByPeer, 1)]);
    let dump = service.dump();
    for line in [
        format!("endpoint {}", server.endpoint()),
        "connections 1, opened 2, closed 1".to_owned(),
        "ended: closed by peer 1".to_owned(),
        format!("tcp {} -> {}, queued 0", server.endpoint(), client.local_addr().unwrap()),
    ] {
        assert!(dump.contains(&line), "{line:?} is not in\n{dump}");
    }
    service.stop();
    assert!(!service.stats().accepting);
    // With a thread for each connection.
    let server = listen::<A>(&[]);
    let (begun, begins) = channel();
    let begun = Mutex::new(begun);
    let handler: Handler<A> = Box::new(move |c| {
        begun.lock().unwrap().send(()).unwrap();
        let _ = c.read(&mut [0; 1]);
    });
    let service = server.serve(&[], handler).unwrap();
    let client = raw(&at::<A>(&server));
    begins.recv_timeout(Duration::from_secs(10)).unwrap();
    let stats = service.stats();
    assert_eq!((stats.connections, stats.received, stats.queued), (1, -1, -1));
    assert!(service.dump().contains(&client.local_addr().unwrap().to_string()));
    drop(client);
    eventually("it has left", || service.stats().ends == [(End::ClosedByPeer, 1)]);
}

/// S1, K1, N1: who is at the other end, and what its kernel does, in the close callback, too.
fn a_connection_is_described<A: Api>() {
    let server = listen::<A>(&[Opt::Keepalive(20_000, 5000, 4)]);
    let (tell, told) = channel();
    let tell = Mutex::new(tell);
    let kept = Arc::new(Mutex::new(None));
    let keep = kept.clone();
    let said = AtomicBool::new(false);
    let on = On::<A> {
        data: Some(Box::new(move |c, _| {
            assert_eq!(c.keepalive().unwrap(), Some((20_000, 5000, 4)));
            assert_eq!(c.snapshot().unwrap().end, None);
            assert!(!said.swap(true, Ordering::Relaxed));
            c.set_data(5);
        })),
        close: Some(Box::new(move |c, _| {
            assert_eq!((c.data(), c.end(), c.is_open()), (5, Some(End::ClosedByPeer), false));
            *keep.lock().unwrap() = Some(c.clone());
            tell.lock().unwrap().send((c.five_tuple().unwrap(), c.name())).unwrap();
        })),
        ..On::default()
    };
    let service = server.serve_events(&[], on).unwrap();
    let mut client = raw(&at::<A>(&server));
    let (from, to) = (client.local_addr().unwrap(), client.peer_addr().unwrap());
    client.write_all(b"x").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let (tuple, name) = told.recv_timeout(Duration::from_secs(10)).unwrap();
    assert_eq!(tuple.local, (to.ip().to_string(), to.port()));
    assert_eq!(tuple.remote, (from.ip().to_string(), from.port()));
    assert_eq!(name, format!("tcp {to} -> {from}"));
    eventually("it has left", || service.connections() == 0);
    // Over, and known to be.
    let over = kept.lock().unwrap().take().unwrap();
    let kind = if A::NUMBER == 1 { ErrorKind::Closed } else { ErrorKind::WrongState };
    fails(over.send(b"x"), kind);
    over.close();
    over.abort();
    assert!(!over.is_open() && over.queued() == 0);
}

/// V2: a timer that is always due leaves the others their turns, and the service its end.
fn a_timer_at_once_starves_nobody<A: Api>() {
    let server = listen::<A>(&[]);
    let on = On::<A> {
        open: Some(Box::new(|c| c.set_timer(0).unwrap())),
        timer: Some(Box::new(|c| c.set_timer(0).unwrap())),
        data: Some(Box::new(|c, data| drop(c.send(data)))),
        ..On::default()
    };
    let service = server.serve_events(&[], on).unwrap();
    let mut clients: Vec<_> = (0..3).map(|_| raw(&at::<A>(&server))).collect();
    for client in &mut clients {
        client.write_all(b"x").unwrap();
        assert_eq!(some(client, 1), b"x");
        assert_ne!(service.connections(), 0);
    }
    drop(service);
}

/// V2: who has ended its own side is still called for timers, and when everything was taken.
fn timers_and_room_of_a_half_closed_connection<A: Api>() {
    let server = listen::<A>(&[]);
    let (mut on, told) = telling::<A>();
    on.open = Some(Box::new(|c| {
        assert_ne!(c.id(), 0);
        c.send(&vec![1; 6 << 20]).unwrap();
        c.shutdown_write();
        c.set_timer(50).unwrap();
    }));
    let _service = server.serve_events(&[Serve::MaxQueued(8 << 20)], on).unwrap();
    let client = raw(&at::<A>(&server));
    assert!(matches!(next(&told), What::Timer(_)));
    assert_eq!(all(&client).len(), 6 << 20);
    assert!(matches!(next(&told), What::Writable(_)));
}

/// I3: when both sides have ended, and the program knows, the connection is over.
fn both_ends_are_the_end<A: Api>() {
    let server = listen::<A>(&[]);
    let (mut on, told) = telling::<A>();
    on.finished = Some(Box::new(|c| {
        c.send(b"bye").unwrap();
        c.shutdown_write();
    }));
    let _service = server.serve_events(&[], on).unwrap();
    let client = raw(&at::<A>(&server));
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(all(&client), b"bye");
    let Close(_, end) = until(&told, closes) else { unreachable!() };
    assert_eq!(end, End::ClosedByPeer);
}

/// K6: a peer that had ended its side and then resets is gone.
fn a_half_closed_peer_that_resets<A: Api>() {
    let server = listen::<A>(&[]);
    let (mut on, told) = telling::<A>();
    let (tell, finished) = channel();
    let tell = Mutex::new(tell);
    on.finished = Some(Box::new(move |_| tell.lock().unwrap().send(()).unwrap()));
    let _service = server.serve_events(&[], on).unwrap();
    let client = raw(&at::<A>(&server));
    client.shutdown(Shutdown::Write).unwrap();
    finished.recv_timeout(Duration::from_secs(10)).unwrap();
    socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    assert!(closes(&until(&told, closes)));
}

/// V4: nobody waits for a peer while it is paused.
fn paused_time_is_not_idle<A: Api>() {
    let server = listen::<A>(&[Opt::IdleLimit(300)]);
    let (mut on, told) = telling::<A>();
    on.open = Some(Box::new(|c| {
        c.pause();
        c.set_timer(600).unwrap();
    }));
    on.timer = Some(Box::new(|c| c.resume()));
    let _service = server.serve_events(&[], on).unwrap();
    let start = Instant::now();
    let _client = raw(&at::<A>(&server));
    let Close(_, end) = until(&told, closes) else { unreachable!() };
    assert_eq!(end, End::IdleLimit);
    assert!(start.elapsed() >= Duration::from_millis(880), "{:?}", start.elapsed());
}

/// V5: a server that is closed while all places are taken has stopped.
fn closed_while_it_is_full<A: Api>() {
    let server = listen::<A>(&[]);
    let service = server.serve_events(&[Serve::Max(1)], echoes::<A>()).unwrap();
    let mut client = raw(&at::<A>(&server));
    client.write_all(b"x").unwrap();
    assert_eq!(some(&client, 1), b"x");
    let _waits = raw(&at::<A>(&server));
    fails(service.wait(50), ErrorKind::TimedOut);
    server.close();
    service.wait(10_000).unwrap();
    assert!(!service.stats().accepting);
}

/// V2: a callback that takes long does not put off timers that are due after it.
fn a_timer_after_a_long_callback<A: Api>() {
    let server = listen::<A>(&[]);
    let (mut on, told) = telling::<A>();
    let (begun, begins) = channel();
    let begun = Mutex::new(begun);
    let count = AtomicUsize::new(0);
    on.open = Some(Box::new(move |c| {
        if count.fetch_add(1, Ordering::Relaxed) % 2 == 0 {
            c.set_timer(900).unwrap();
        }
        begun.lock().unwrap().send(()).unwrap();
    }));
    on.data = Some(Box::new(|_, _| {
        std::thread::sleep(Duration::from_millis(700)); // the program's own
    }));
    let _service = server.serve_events(&[], on).unwrap();
    promptly(Duration::from_millis(1150), || {
        let start = Instant::now();
        let (_one, mut other) = (raw(&at::<A>(&server)), raw(&at::<A>(&server)));
        for _ in 0..2 {
            begins.recv_timeout(Duration::from_secs(10)).unwrap();
        }
        other.write_all(b"x").unwrap();
        until(&told, |what| matches!(what, What::Timer(_)));
        start.elapsed()
    });
}

/// V7: after a close, and while it is paused, no data comes, whatever had been read before.
fn nothing_comes_after_a_close<A: Api>() {
    let server = listen::<A>(&[Opt::CloseTimeout(200)]);
    let (mut on, told) = telling::<A>();
    let lines = Arc::new(AtomicUsize::new(0));
    let count = lines.clone();
    on.data = Some(Box::new(move |c, _| {
        // A panic would only end the connection.
        if count.fetch_add(1, Ordering::Relaxed) == 0 {
            c.send(b"so its end is waited for").unwrap();
            c.pause();
            c.set_timer(50).unwrap();
        }
    }));
    on.timer = Some(Box::new(|c| {
        c.resume();
        c.pause();
        c.resume();
        c.close();
    }));
    let _service = server.serve_events(&[Serve::Framing(Framing::Lines { max: 10 })], on).unwrap();
    let mut client = raw(&at::<A>(&server));
    client.write_all(b"one\ntwo\nthree\n").unwrap();
    let Close(_, end) = until(&told, closes) else { unreachable!() };
    assert_eq!((end, lines.load(Ordering::Relaxed)), (End::ClosedHere, 1));
}

/// V4: with the first byte the idle limit begins, though the time for that byte was longer.
fn the_idle_limit_after_the_first_byte<A: Api>() {
    let server = listen::<A>(&[Opt::FirstByteLimit(20_000), Opt::IdleLimit(200)]);
    let (on, told) = telling::<A>();
    let _service = server.serve_events(&[], on).unwrap();
    let mut client = raw(&at::<A>(&server));
    assert!(matches!(next(&told), Open(_)));
    client.write_all(b"x").unwrap();
    let (Close(_, end), took) = timed(|| until(&told, closes)) else { unreachable!() };
    assert_eq!(end, End::IdleLimit);
    assert!(took < Duration::from_secs(5), "{took:?}");
}

/// I3: what is left to read when it closes is thrown away to its end, however much it is.
fn a_close_throws_much_away<A: Api>() {
    let server = listen::<A>(&[Opt::CloseTimeout(20_000)]);
    let (mut on, told) = telling::<A>();
    let (kept, connections) = channel();
    let kept = Mutex::new(kept);
    on.open = Some(Box::new(move |c| {
        c.pause();
        kept.lock().unwrap().send(c.clone()).unwrap();
    }));
    let _service = server.serve_events(&[], on).unwrap();
    let mut client = raw(&at::<A>(&server));
    let connection: A::Connection = connections.recv_timeout(Duration::from_secs(10)).unwrap();
    // All that fits, and the end: from then on the kernel tells of nothing more.
    client.set_nonblocking(true).unwrap();
    let mut sent = 0;
    while let Ok(n) = client.write(&[0; 64 << 10]) {
        sent += n;
    }
    assert!(sent > 2 << 20, "{sent}");
    client.set_nonblocking(false).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    connection.send(b"enough").unwrap();
    connection.close();
    assert_eq!(all(&client), b"enough");
    let (_, took) = timed(|| until(&told, closes));
    assert!(took < Duration::from_secs(5), "{took:?}");
}

/// V2: what a callback asks for holds, though more is there to be read at once.
fn a_change_in_the_middle_of_much_data<A: Api>() {
    let server = listen::<A>(&[]);
    let (mut on, told) = telling::<A>();
    let (begun, begins) = channel();
    let begun = Mutex::new(begun);
    let (goes_on, go_on) = channel();
    let go_on = Mutex::new(go_on);
    let pieces = Arc::new(AtomicUsize::new(0));
    let count = pieces.clone();
    on.data = Some(Box::new(move |c, data| match data {
        b"wait" => {
            begun.lock().unwrap().send(()).unwrap();
            let _ = go_on.lock().unwrap().recv_timeout(Duration::from_secs(10));
        }
        _ => {
            if count.fetch_add(1, Ordering::Relaxed) == 0 {
                c.set_timer(10).unwrap();
            }
        }
    }));
    let _service = server.serve_events(&[], on).unwrap();
    let (mut one, mut other) = (raw(&at::<A>(&server)), raw(&at::<A>(&server)));
    for _ in 0..2 {
        until(&told, |what| matches!(what, Open(_)));
    }
    // All of it is there before the loop looks.
    one.write_all(b"wait").unwrap();
    begins.recv_timeout(Duration::from_secs(10)).unwrap();
    other.write_all(&[7; 100_000]).unwrap();
    goes_on.send(()).unwrap();
    assert!(matches!(next(&told), What::Timer(_)));
    assert!(pieces.load(Ordering::Relaxed) >= 2, "it came in one piece");
}
