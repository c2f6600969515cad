//! The table of keepsock/serving.h: a service ends a connection, and the peer receives FIN or RST.

use crate::support::os::AsRawFd;
use std::io::{ErrorKind as Io, Read, Write};
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::*;
use keepsock::{CloseReason, Framing};

both_apis!(
    peer_of_events_receives_the_end_of_the_table,
    peer_of_threads_receives_the_end_of_the_table,
    server_that_is_served_twice_ends_both_services,
    descriptor_released_in_a_handler_stays_open,
);

/// The end that the peer receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Fin,
    Rst,
}

use End::{Fin, Rst};

fn client(endpoint: &str) -> TcpStream {
    let stream = TcpStream::connect(endpoint).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream
}

/// Reads up to the end: the number of bytes, and the end.
fn end(mut stream: &TcpStream) -> (usize, End) {
    let (mut total, mut buf) = (0, [0; 65536]);
    loop {
        match stream.read(&mut buf) {
            Ok(0) => return (total, Fin),
            Ok(n) => total += n,
            Err(e) if e.kind() == Io::ConnectionReset => return (total, Rst),
            Err(e) => panic!("after {total} bytes: {e}"),
        }
    }
}

/// The cause that ends the connection of a service with event loops.
enum By<A: Api> {
    /// An option, which expires or is exceeded.
    Limit,
    /// A call of the program.
    Call(fn(&A::Service, &A::Connection)),
}

/// The program of a row.
struct Row<A: Api> {
    name: &'static str,
    options: Vec<Opt<'static, A>>,
    serve: Vec<Serve>,
    /// The bytes that the service sends in its open callback.
    sends: usize,
    /// Whether the service reads.
    reads: bool,
    /// The bytes that the peer sends.
    peer_sends: &'static [u8],
    by: By<A>,
    reason: CloseReason,
    end: End,
}

fn row<A: Api>(name: &'static str, reason: CloseReason, end: End) -> Row<A> {
    Row {
        name,
        options: Vec::new(),
        serve: Vec::new(),
        sends: 0,
        reads: true,
        peer_sends: b"",
        by: By::Limit,
        reason,
        end,
    }
}

const BEAT: &[u8] = b"PING\n";

/// More than the kernel and the peer's receive buffer hold.
const MUCH: usize = 8 << 20;

fn rows<A: Api>() -> Vec<Row<A>> {
    use CloseReason::{
        HeartbeatTimeout, IdleTimeout, Local, MessageMalformed, MessageTooLong, SlowConsumer,
    };
    use keepsock::LengthFormat::VarintMqtt;
    let idle = || vec![Opt::IdleTimeout(100)];
    let push = |s: &A::Service, _: &A::Connection| {
        while s.push(None, &[0; 50_000]).unwrap().cut == 0 {}
    };
    let close: fn(&A::Service, &A::Connection) = |_, c| c.close();
    let abort: fn(&A::Service, &A::Connection) = |_, c| c.abort();
    let drain: fn(&A::Service, &A::Connection) = |s, c| {
        c.close();
        assert_eq!(s.drain(60_000).unwrap().1, 0);
    };
    let drain_too_long: fn(&A::Service, &A::Connection) =
        |s, _| assert_eq!(s.drain(100).unwrap(), (0, 1));
    vec![
        Row { options: idle(), sends: 5, ..row("idle timeout", IdleTimeout, Fin) },
        Row { options: idle(), sends: MUCH, ..row("idle, queued bytes", IdleTimeout, Rst) },
        Row {
            options: vec![Opt::FirstByteTimeout(100)],
            ..row("first-byte timeout", IdleTimeout, Fin)
        },
        Row {
            options: vec![Opt::Heartbeat(BEAT, 50), Opt::HeartbeatTimeout(50)],
            ..row("heartbeat timeout", HeartbeatTimeout, Rst)
        },
        Row {
            serve: vec![Serve::QueueLimit(100_000)],
            by: By::Call(push),
            ..row("queue limit", SlowConsumer, Rst)
        },
        Row {
            serve: vec![Serve::Framing(Framing::Lines { max: 3 })],
            sends: 5,
            peer_sends: b"12345",
            ..row("message too long", MessageTooLong, Rst)
        },
        Row {
            serve: vec![Serve::Framing(Framing::Prefixed { format: VarintMqtt, max: 3 })],
            sends: 5,
            peer_sends: b"\x80\x80\x80\x80",
            ..row("malformed message", MessageMalformed, Rst)
        },
        Row { by: By::Call(close), sends: 5, ..row("close", Local, Fin) },
        Row { by: By::Call(close), ..row("close, nothing sent", Local, Fin) },
        Row {
            by: By::Call(close),
            sends: 5,
            reads: false,
            peer_sends: b"unread",
            ..row("close, unread input", Local, Fin)
        },
        Row { by: By::Call(abort), sends: 5, ..row("abort", Local, Rst) },
        Row { by: By::Call(drain), sends: 5, ..row("drain", Local, Fin) },
        Row { by: By::Call(drain_too_long), sends: 5, ..row("end of a drain", Local, Rst) },
    ]
}

/// K7, V3, V4, V5, V6: each row of the table, with event loops.
fn peer_of_events_receives_the_end_of_the_table<A: Api>() {
    for row in rows::<A>() {
        let server = A::listen("127.0.0.1:0", &row.options).unwrap();
        let (opened, open) = channel();
        let (closed, close) = channel();
        let (opened, closed) = (Mutex::new(opened), Mutex::new(closed));
        let (sends, reads) = (row.sends, row.reads);
        let on = On::<A> {
            open: Some(Box::new(move |c| {
                if !reads {
                    c.pause();
                }
                if sends > 0 {
                    c.send(&vec![0; sends]).unwrap();
                }
                opened.lock().unwrap().send(c.clone()).unwrap();
            })),
            // Without a drain callback the library closes the connection.
            drain: Some(Box::new(|_| {})),
            close: Some(Box::new(move |_, reason| closed.lock().unwrap().send(reason).unwrap())),
            ..On::default()
        };
        let service = server.serve_events(&row.serve, on).unwrap();
        let mut peer = client(&server.endpoint());
        let connection = open.recv_timeout(Duration::from_secs(60)).unwrap();
        peer.write_all(row.peer_sends).unwrap();
        eventually("the bytes have arrived", || {
            row.reads || connection.stats().unwrap().unread == row.peer_sends.len() as i64
        });
        if let By::Call(call) = row.by {
            std::thread::scope(|scope| {
                scope.spawn(|| call(&service, &connection));
                // The peer of a slow consumer reads after the end.
                let ended = close_of(row.name, &close, &peer, row.reason);
                assert_eq!(ended, row.end, "{}", row.name);
            });
        } else {
            assert_eq!(close_of(row.name, &close, &peer, row.reason), row.end, "{}", row.name);
        }
    }
}

/// Waits for the close callback of a limit, or for the peer's end that a graceful close waits for.
fn close_of(
    name: &str,
    close: &Receiver<CloseReason>,
    peer: &TcpStream,
    expected: CloseReason,
) -> End {
    let graceful = expected == CloseReason::Local;
    let early = (!graceful).then(|| close.recv_timeout(Duration::from_secs(60)).unwrap());
    let (_, received) = end(peer);
    // A graceful close waits for the FIN of the peer.
    peer.shutdown(std::net::Shutdown::Both).unwrap_or(());
    let reason = early.unwrap_or_else(|| close.recv_timeout(Duration::from_secs(60)).unwrap());
    assert_eq!(reason, expected, "{name}");
    received
}

/// K7, V4, V5: each row of the table, with a thread for each connection.
fn peer_of_threads_receives_the_end_of_the_table<A: Api>() {
    let limits: [(&str, Vec<Opt<'static, A>>, CloseReason); 3] = [
        ("idle timeout", vec![Opt::IdleTimeout(100)], CloseReason::IdleTimeout),
        ("first-byte timeout", vec![Opt::FirstByteTimeout(100)], CloseReason::IdleTimeout),
        (
            "heartbeat timeout",
            vec![Opt::Heartbeat(BEAT, 50), Opt::HeartbeatTimeout(50)],
            CloseReason::HeartbeatTimeout,
        ),
    ];
    for (name, options, reason) in limits {
        let server = A::listen("127.0.0.1:0", &options).unwrap();
        let (told, ended) = channel();
        let told = Mutex::new(told);
        let handler = move |c: &A::Client| {
            while c.read(&mut [0; 64]).is_ok_and(|n| n > 0) {}
            told.lock().unwrap().send(c.close_reason()).unwrap();
        };
        let _service = server.serve(&[], Box::new(handler)).unwrap();
        let peer = client(&server.endpoint());
        // The handler returns, and the service closes the connection gracefully.
        assert_eq!(end(&peer).1, Fin, "{name}");
        assert_eq!(ended.recv_timeout(Duration::from_secs(60)).unwrap(), Some(reason), "{name}");
    }
    // In a drain the handler returns in time, or it does not.
    for (timeout, result, expected) in [(10_000, (1, 0), Fin), (100, (0, 1), Rst)] {
        let server = A::listen("127.0.0.1:0", &[]).unwrap();
        let (resume, gate) = channel::<()>();
        let gate = Arc::new(Mutex::new(gate));
        let handler = move |c: &A::Client| {
            while c.read(&mut [0; 64]).is_ok_and(|n| n > 0) {}
            if timeout == 100 {
                let _ = gate.lock().unwrap().recv();
            }
        };
        let service = server.serve(&[], Box::new(handler)).unwrap();
        let peer = client(&server.endpoint());
        eventually("the connection is open", || service.connections() == 1);
        std::thread::scope(|scope| {
            let drain = scope.spawn(|| service.drain(timeout).unwrap());
            assert_eq!(end(&peer).1, expected);
            // A drain ends after the handler.
            drop(resume);
            assert_eq!(drain.join().unwrap(), result);
        });
    }
}

/// V1, V2, L2: two services share one server. Stopping one of them closes the server, and the
/// connections of both continue.
fn server_that_is_served_twice_ends_both_services<A: Api>() {
    for first_is_events in [false, true] {
        let server = A::listen("127.0.0.1:0", &[]).unwrap();
        let handler = |c: &A::Client| while c.read(&mut [0; 64]).is_ok_and(|n| n > 0) {};
        let first = match first_is_events {
            true => server.serve_events(&[], On::default()).unwrap(),
            false => server.serve(&[], Box::new(handler)).unwrap(),
        };
        let second = server.serve(&[], Box::new(handler)).unwrap();
        let clients: Vec<_> = (0..20).map(|_| client(&server.endpoint())).collect();
        let served = || first.connections() + second.connections();
        eventually("every client is served once", || served() == 20);
        assert_eq!(server.stats().accepted, 20);
        first.stop();
        second.wait_stopped(60_000).unwrap();
        assert!(!second.stats().accepting);
        let refuses = || TcpStream::connect(server.endpoint()).is_err();
        // On other systems the last thread that uses the listener closes it.
        assert!(refuses() || !cfg!(keepsock_linux));
        eventually("the server refuses clients", refuses);
        assert!(server.serve(&[], Box::new(handler)).is_err());
        assert_eq!(served(), 20);
        drop(clients);
        eventually("all clients have ended", || served() == 0);
    }
}

/// V1, T4: a handler may release the descriptor of its connection, which then stays open.
fn descriptor_released_in_a_handler_stays_open<A: Api>() {
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    let (give, take) = channel();
    let give = Mutex::new(give);
    let handler = move |c: &A::Client| {
        give.lock().unwrap().send(c.release().unwrap()).unwrap();
        assert!(c.write_all(b"x").is_err());
        assert_eq!(c.close_reason(), Some(CloseReason::Local));
    };
    let service = server.serve(&[], Box::new(handler)).unwrap();
    let peer = client(&server.endpoint());
    let fd = take.recv_timeout(Duration::from_secs(60)).unwrap();
    eventually("the service does not count it", || service.connections() == 0);
    assert_eq!(service.drain(60_000).unwrap(), (0, 0));
    assert!(fd.as_raw_fd() >= 0);
    TcpStream::from(fd).write_all(b"hello").unwrap();
    assert_eq!(end(&peer), (5, Fin));
}
