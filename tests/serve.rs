//! V1: one thread for each connection, bounded. V3: broadcast. V5: drain. V7: what may be
//! called from inside a handler.
#![cfg(target_os = "linux")]
// Generic functions are tests that Clippy does not know for such.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::Duration;

use common::{
    Api, Client, INFINITE, Opt, Outcome, Serve, Server, Service, TRANSPORTS, Token, Transport,
    eventually, fails, promptly, somewhere, system, timed,
};
use keepsock::ErrorKind;

both_apis![
    each_connection_has_a_thread_of_its_own,
    a_full_server_lets_others_wait,
    a_full_server_refuses_if_told_to,
    no_connections_at_all_are_refused,
    a_connection_ends_with_its_handler,
    a_drain_lets_handlers_say_goodbye,
    a_drain_cuts_what_does_not_end_in_time,
    a_drain_of_nothing,
    a_drain_ends_every_way_of_reading,
    stopping_leaves_live_connections_alone,
    stopping_from_inside_a_handler,
    draining_from_inside_a_handler_is_refused,
    waiting_ends_by_a_token,
    waiting_ends_when_the_server_closes,
    freeing_cuts_and_waits_for_the_handlers,
    a_broadcast_reaches_all,
    a_slow_reader_is_cut_and_delays_nobody,
    a_fixed_pool,
    a_broadcast_does_not_cut_another_write,
    a_broadcast_from_inside_a_handler,
    a_closing_connection_is_left_to_close,
    a_connection_closed_under_a_reader_is_left_to_close,
    serving_waits_whatever_accept_is_set_to,
    a_service_that_was_ended_accepts_no_more,
    one_address_has_so_many,
    networks_that_may_connect,
    a_network_that_is_none,
    a_client_that_says_nothing,
    pushing_to_one_client_from_elsewhere,
];

/// Echoes lines until the connection ends, and says goodbye to those who are drained.
fn echo<A: Api>(client: &A::Client) {
    loop {
        match client.read_line(1024) {
            Ok(line) => client.write_all(format!("{line}\n").as_bytes()).unwrap_or(()),
            Err(failure) => {
                if failure.is(ErrorKind::Draining) {
                    let _ = client.write_all(b"goodbye\n");
                }
                return;
            }
        }
    }
}

/// V3, V5, I3: neither a broadcast nor a drain cuts short a connection that is being
/// closed in order: its client, which goes on sending, gets all of the reply.
fn a_closing_connection_is_left_to_close<A: Api>() {
    const REPLY: usize = 1 << 20;
    for drains in [false, true] {
        let server = A::listen("127.0.0.1:0", &[Opt::CloseTimeout(20_000)]).unwrap();
        let reply = |client: &A::Client| {
            system::force_send_buffer(client.fd().unwrap(), 4 << 20);
            client.write_all(&vec![b'r'; REPLY]).unwrap();
        };
        let service = Arc::new(server.serve(&[], Box::new(reply)).unwrap());
        let client = A::connect(&server.endpoint(), &[Opt::CloseTimeout(0)]).unwrap();
        client.write_all(&[b'q'; 10_000]).unwrap();
        // The first byte is there when the handler is about to return.
        let mut got = client.read(&mut [0; 1]).unwrap();
        thread::scope(|scope| {
            let ending = scope.spawn(|| {
                if drains {
                    assert_eq!(service.drain(20_000).unwrap().1, 0, "cut while it closes");
                } else {
                    for _ in 0..20 {
                        assert_eq!(service.broadcast(b"news").1, 0, "cut while it closes");
                        thread::sleep(Duration::from_millis(2));
                    }
                }
            });
            let mut buf = vec![0; 64 << 10];
            loop {
                match client.read(&mut buf) {
                    Ok(0) => break,
                    Ok(n) => got += n,
                    // A drain reads no more: what this side sends after that is answered
                    // by RST, but not before all of the reply has come.
                    Err(failure) => {
                        assert!(drains && failure.is(ErrorKind::Reset), "{failure:?}");
                        break;
                    }
                }
                let _ = client.write(&[b'q'; 10]);
            }
            client.close().unwrap_or(());
            ending.join().unwrap();
        });
        // What was broadcast before the handler returned came too.
        assert_eq!((got - REPLY) % 4, 0, "{got} bytes");
    }
}

/// V3, T3: nor one that its handler closes while another thread reads from it.
fn a_connection_closed_under_a_reader_is_left_to_close<A: Api>() {
    const REPLY: usize = 1 << 20;
    let server = A::listen("127.0.0.1:0", &[Opt::CloseTimeout(20_000)]).unwrap();
    let reply = |client: &A::Client| {
        system::force_send_buffer(client.fd().unwrap(), 4 << 20);
        client.write_all(&vec![b'r'; REPLY]).unwrap();
        let (outcome, _) =
            common::while_waiting(|| client.read(&mut [0; 8]), || client.close().unwrap());
        fails(outcome, ErrorKind::Closed);
    };
    let service = server.serve(&[], Box::new(reply)).unwrap();
    let client = A::connect(&server.endpoint(), &[Opt::CloseTimeout(0)]).unwrap();
    let mut got = client.read(&mut [0; 1]).unwrap();
    // The reply does not fit into this side's buffer, so the close is waiting for
    // its delivery through most of these.
    for _ in 0..20 {
        assert_eq!(service.broadcast(b"news").1, 0, "cut while it closes");
        thread::sleep(Duration::from_millis(5));
    }
    let mut buf = vec![0; 64 << 10];
    while let Ok(n @ 1..) = client.read(&mut buf) {
        got += n;
    }
    assert_eq!((got - REPLY) % 4, 0, "{got} bytes");
}

/// V1: the accept timeout and non-blocking mode are for callers of accept; serving waits.
fn serving_waits_whatever_accept_is_set_to<A: Api>() {
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    server.set_accept_timeout(10).unwrap();
    server.set_nonblocking(true).unwrap();
    let service = server.serve(&[], Box::new(echo::<A>)).unwrap();
    fails(service.wait(100), ErrorKind::TimedOut);
    let _client = served::<A>(&server);
    service.drain(10_000).unwrap();
}

/// V5, T2: a service that its token has ended does not begin again when the token is
/// reset and a handler comes back.
fn a_service_that_was_ended_accepts_no_more<A: Api>() {
    let token = A::token();
    let server = A::listen("127.0.0.1:0", &[Opt::Cancel(&token)]).unwrap();
    let service = server.serve(&[], Box::new(echo::<A>)).unwrap();
    let client = served::<A>(&server);
    token.fire();
    service.wait(10_000).unwrap();
    token.reset();
    client.close().unwrap();
    eventually("the handler is back", || service.connections() == 0);
    let waiting = A::connect(&server.endpoint(), &[Opt::ReadTimeout(50), Opt::CloseTimeout(0)]);
    let waiting = waiting.unwrap();
    waiting.write_all(b"hello\n").unwrap();
    fails(waiting.read_line(64), ErrorKind::TimedOut);
}

/// A server that echoes, and its service.
fn echo_server<A: Api>(transport: Transport) -> Echo<A> {
    let (endpoint, dir) = somewhere(transport);
    let server = A::listen(&endpoint, &[]).unwrap();
    let service = server.serve(&[], Box::new(echo::<A>)).unwrap();
    Echo { service, server, _dir: dir }
}

struct Echo<A: Api> {
    service: A::Service,
    server: A::Server,
    _dir: Option<common::TempDir>,
}

/// A client that got an answer, so its handler runs.
fn served<A: Api>(server: &A::Server) -> A::Client {
    let client = A::connect(&server.endpoint(), &[Opt::CloseTimeout(0)]).unwrap();
    client.write_all(b"hello\n").unwrap();
    assert_eq!(client.read_line(64).unwrap(), "hello");
    client
}

/// Handlers that tell of each connection and then hold it until they are let go.
fn held<A: Api>(server: &A::Server, options: &[Serve]) -> (A::Service, Receiver<u16>, Sender<()>) {
    let (begun, begins) = channel();
    let (let_go, gone) = channel();
    let (begun, gone) = (Mutex::new(begun), Mutex::new(gone));
    let handler = move |client: &A::Client| {
        begun.lock().unwrap().send(client.five_tuple().remote.1).unwrap();
        let _ = gone.lock().unwrap().recv();
    };
    (server.serve(options, Box::new(handler)).unwrap(), begins, let_go)
}

/// V1: all are served at once, though each handler waits for the last of them.
fn each_connection_has_a_thread_of_its_own<A: Api>() {
    const CLIENTS: usize = 20;
    for transport in TRANSPORTS {
        let (endpoint, _dir) = somewhere(transport);
        let server = A::listen(&endpoint, &[]).unwrap();
        let barrier = Arc::new(std::sync::Barrier::new(CLIENTS));
        let threads = Arc::new(Mutex::new(std::collections::HashSet::new()));
        let (meet, seen) = (barrier.clone(), threads.clone());
        let handler = move |client: &A::Client| {
            seen.lock().unwrap().insert(thread::current().id());
            meet.wait();
            echo::<A>(client);
        };
        let service = server.serve(&[], Box::new(handler)).unwrap();
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| A::connect(&server.endpoint(), &[Opt::CloseTimeout(0)]).unwrap())
            .collect();
        for (i, client) in clients.iter().enumerate() {
            client.write_all(format!("{i}\n").as_bytes()).unwrap();
            assert_eq!(client.read_line(64).unwrap(), i.to_string());
        }
        assert_eq!(service.connections() as usize, CLIENTS);
        assert_eq!(threads.lock().unwrap().len(), CLIENTS);
        drop(clients);
        eventually("all have left", || service.connections() == 0);
    }
}

/// V1: a client beyond the bound waits, and has its turn when another has left.
fn a_full_server_lets_others_wait<A: Api>() {
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    let (service, begins, let_go) = held::<A>(&server, &[Serve::Max(2)]);
    let clients: Vec<_> =
        (0..4).map(|_| A::connect(&server.endpoint(), &[Opt::CloseTimeout(0)]).unwrap()).collect();
    begins.recv().unwrap();
    begins.recv().unwrap();
    assert_eq!(service.connections(), 2);
    begins.recv_timeout(Duration::from_millis(50)).unwrap_err();
    let_go.send(()).unwrap();
    begins.recv().unwrap();
    begins.recv_timeout(Duration::from_millis(20)).unwrap_err();
    assert!(service.connections() <= 2);
    let_go.send(()).unwrap();
    begins.recv().unwrap();
    assert_eq!(server.counters().refused, 0);
    drop(let_go);
    drop(clients);
    eventually("all have left", || service.connections() == 0);
}

/// V1: or it is refused, at once and counted; the others are not disturbed.
fn a_full_server_refuses_if_told_to<A: Api>() {
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    let options = [Serve::Max(2), Serve::Refuse];
    let service = server.serve(&options, Box::new(echo::<A>)).unwrap();
    let first = served::<A>(&server);
    let second = served::<A>(&server);
    for refused in 1..=3 {
        // The reset may come before connect has looked how it went.
        let client = A::connect(&server.endpoint(), &[]);
        fails(client.and_then(|c| c.read(&mut [0; 8])), ErrorKind::Reset);
        assert_eq!(server.counters().refused, refused);
    }
    assert_eq!(service.connections(), 2);
    first.write_all(b"still here\n").unwrap();
    assert_eq!(first.read_line(64).unwrap(), "still here");
    drop(second);
    eventually("there is a place", || service.connections() == 1);
    served::<A>(&server);
}

/// E2: a bound of zero, and a server that is closed.
fn no_connections_at_all_are_refused<A: Api>() {
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    let serve = |options: &[Serve]| server.serve(options, Box::new(echo::<A>)).map(drop);
    fails(serve(&[Serve::Max(0)]), ErrorKind::InvalidArgument);
    server.close();
    fails(serve(&[]), ErrorKind::Closed);
}

/// V1, I3: when the handler returns, the connection is closed, gracefully.
fn a_connection_ends_with_its_handler<A: Api>() {
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    let handler = |c: &A::Client| c.write_all(&[b'r'; 200_000]).unwrap_or(());
    let service = server.serve(&[], Box::new(handler)).unwrap();
    for _ in 0..5 {
        let mut client = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
        client.write_all(b"unread").unwrap();
        let mut all = Vec::new();
        client.read_to_end(&mut all).unwrap();
        assert_eq!(all.len(), 200_000);
    }
    eventually("all have left", || service.connections() == 0);
    assert_eq!(server.counters().accepted, 5);
}

/// V5: each live connection is told: its read returns "draining", its writes still
/// work, and the peer gets the goodbye and then the end, in order.
fn a_drain_lets_handlers_say_goodbye<A: Api>() {
    for transport in TRANSPORTS {
        let s = echo_server::<A>(transport);
        let clients: Vec<_> = (0..4).map(|_| served::<A>(&s.server)).collect();
        let (counts, took) = timed(|| s.service.drain(10_000).unwrap());
        assert_eq!(counts, (4, 0));
        assert!(took < Duration::from_secs(5), "{took:?}");
        for client in &clients {
            assert_eq!(client.read_line(64).unwrap(), "goodbye");
            assert_eq!(client.read(&mut [0; 8]).unwrap(), 0);
        }
        assert_eq!(s.service.connections(), 0);
        s.service.wait(INFINITE).unwrap();
        A::connect(&s.server.endpoint(), &[]).map(drop).unwrap_err();
        assert_eq!(s.service.drain(10_000).unwrap(), (0, 0));
    }
}

/// V5: at the deadline what is left is reset, and the two kinds are counted.
fn a_drain_cuts_what_does_not_end_in_time<A: Api>() {
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    let handler = |client: &A::Client| {
        client.write_all(b"x").unwrap();
        if client.read_line(64).is_ok_and(|line| line == "stubborn") {
            // Deaf to the drain: only being cut ends this.
            client.write_all(b"x").unwrap();
            while client.write_all(&[0; 100_000]).is_ok() {}
        }
    };
    let service = server.serve(&[], Box::new(handler)).unwrap();
    let connect = || {
        let mut client = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
        client.read_exact(&mut [0; 1]).unwrap();
        client
    };
    let mut stubborn: Vec<_> = (0..2).map(|_| connect()).collect();
    let _willing: Vec<_> = (0..3).map(|_| connect()).collect();
    for client in &mut stubborn {
        client.write_all(b"stubborn\n").unwrap();
        client.read_exact(&mut [0; 1]).unwrap();
    }
    let (counts, took) = timed(|| service.drain(200).unwrap());
    assert_eq!(counts, (3, 2));
    assert!(took >= Duration::from_millis(200), "{took:?}");
    assert!(took < Duration::from_secs(2), "{took:?}");
    for mut client in stubborn {
        let e = client.read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(e.kind(), std::io::ErrorKind::ConnectionReset);
    }
    eventually("their handlers have ended", || service.connections() == 0);
}

/// V5: with nobody there it takes no time.
fn a_drain_of_nothing<A: Api>() {
    promptly(Duration::from_millis(50), || {
        let s = echo_server::<A>(Transport::Tcp);
        let (counts, took) = timed(|| s.service.drain(10_000).unwrap());
        assert_eq!(counts, (0, 0));
        took
    });
}

/// V5: "draining" is what every way of reading returns, and not an end of the stream;
/// bytes that came before are not lost to a reader who wants them.
fn a_drain_ends_every_way_of_reading<A: Api>() {
    type Read<A> = fn(&<A as Api>::Client) -> Outcome<()>;
    let calls: [Read<A>; 6] = [
        |c| c.read(&mut [0; 8]).map(drop),
        |c| c.read_slices(&mut [&mut [0; 8]]).map(drop),
        |c| c.read_exact(&mut [0; 8]),
        |c| c.read_until(b';', 64).map(drop),
        |c| c.read_line(64).map(drop),
        |c| c.wait_hangup(INFINITE).map(drop),
    ];
    for transport in TRANSPORTS {
        for (i, call) in calls.into_iter().enumerate() {
            let (endpoint, _dir) = somewhere(transport);
            let server = A::listen(&endpoint, &[]).unwrap();
            let (tell, told) = channel();
            let tell = Mutex::new(tell);
            let handler = move |client: &A::Client| {
                if i % 2 == 1 {
                    client.set_read_timeout(20_000).unwrap();
                }
                client.write_all(b"x").unwrap();
                tell.lock().unwrap().send(call(client)).unwrap();
            };
            let service = server.serve(&[], Box::new(handler)).unwrap();
            let client = A::connect(&server.endpoint(), &[Opt::CloseTimeout(0)]).unwrap();
            assert_eq!(client.read(&mut [0; 8]).unwrap(), 1);
            assert_eq!(service.drain(10_000).unwrap(), (1, 0));
            fails(told.recv().unwrap(), ErrorKind::Draining);
        }
    }
}

/// V5: stop ends accepting and nothing else.
fn stopping_leaves_live_connections_alone<A: Api>() {
    for transport in TRANSPORTS {
        let s = echo_server::<A>(transport);
        fails(s.service.wait(0), ErrorKind::TimedOut);
        fails(s.service.wait(20), ErrorKind::TimedOut);
        let client = served::<A>(&s.server);
        s.service.stop();
        s.service.stop();
        s.service.wait(INFINITE).unwrap();
        A::connect(&s.server.endpoint(), &[]).map(drop).unwrap_err();
        client.write_all(b"still here\n").unwrap();
        assert_eq!(client.read_line(64).unwrap(), "still here");
        assert_eq!(s.service.connections(), 1);
        assert_eq!(s.service.drain(10_000).unwrap(), (1, 0));
    }
}

/// A place for the service that its own handlers may use. It is never freed: the last
/// to hold it must not be a handler.
fn place<A: Api>() -> &'static OnceLock<A::Service> {
    Box::leak(Box::new(OnceLock::new()))
}

/// A handler may run before its service is in its place.
fn there<T>(place: &OnceLock<T>) -> &T {
    eventually("the service is there", || place.get().is_some());
    place.get().unwrap()
}

/// V7: a handler may stop its own service.
fn stopping_from_inside_a_handler<A: Api>() {
    let service = place::<A>();
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    let handler = move |client: &A::Client| {
        if client.read_line(64).is_ok_and(|line| line == "stop") {
            there(service).stop();
            client.write_all(b"stopped\n").unwrap();
        }
    };
    service.set(server.serve(&[], Box::new(handler)).unwrap()).ok().unwrap();
    let client = A::connect(&server.endpoint(), &[]).unwrap();
    client.write_all(b"stop\n").unwrap();
    assert_eq!(client.read_line(64).unwrap(), "stopped");
    there(service).wait(INFINITE).unwrap();
    fails(server.accept(), ErrorKind::Closed);
}

/// V7, V5: a drain from there would wait for itself, and is refused.
fn draining_from_inside_a_handler_is_refused<A: Api>() {
    let service = place::<A>();
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    let (tell, told) = channel();
    let tell = Mutex::new(tell);
    let handler = move |_: &A::Client| {
        tell.lock().unwrap().send(there(service).drain(10_000)).unwrap();
    };
    service.set(server.serve(&[], Box::new(handler)).unwrap()).ok().unwrap();
    let _client = A::connect(&server.endpoint(), &[]).unwrap();
    let failure = fails(told.recv().unwrap(), ErrorKind::WrongState);
    assert!(failure.message.contains("inside a handler"), "{failure:?}");
    // Nothing was stopped by it.
    let _second = A::connect(&server.endpoint(), &[]).unwrap();
    fails(told.recv().unwrap(), ErrorKind::WrongState);
    there(service).drain(10_000).unwrap();
}

/// T2: what main() does: it waits for the service until a token is fired.
fn waiting_ends_by_a_token<A: Api>() {
    promptly(Duration::from_millis(50), || {
        let token = A::token();
        let server = A::listen("127.0.0.1:0", &[Opt::Cancel(&token)]).unwrap();
        let service = server.serve(&[], Box::new(echo::<A>)).unwrap();
        let client = served::<A>(&server);
        let (outcome, took) = common::while_waiting(|| service.wait(INFINITE), || token.fire());
        outcome.unwrap();
        client.write_all(b"still here\n").unwrap();
        assert_eq!(client.read_line(64).unwrap(), "still here");
        assert_eq!(service.drain(10_000).unwrap(), (1, 0));
        took
    });
}

/// V5: closing the server socket ends accepting too, and is no error.
fn waiting_ends_when_the_server_closes<A: Api>() {
    let s = echo_server::<A>(Transport::Tcp);
    let _client = served::<A>(&s.server);
    let (outcome, _) = common::while_waiting(|| s.service.wait(INFINITE), || s.server.close());
    outcome.unwrap();
}

/// E2: after a service is freed no handler runs; what was live is reset.
fn freeing_cuts_and_waits_for_the_handlers<A: Api>() {
    let running = Arc::new(AtomicU32::new(0));
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    let count = running.clone();
    let handler = move |client: &A::Client| {
        count.fetch_add(1, Ordering::SeqCst);
        echo::<A>(client);
        count.fetch_sub(1, Ordering::SeqCst);
    };
    let service = server.serve(&[], Box::new(handler)).unwrap();
    let clients: Vec<_> = (0..3).map(|_| served::<A>(&server)).collect();
    assert_eq!(running.load(Ordering::SeqCst), 3);
    drop(service);
    assert_eq!(running.load(Ordering::SeqCst), 0);
    for client in clients {
        fails(client.read(&mut [0; 8]), ErrorKind::Reset);
    }
    fails(server.accept(), ErrorKind::Closed);
}

/// Clients that only listen, and a service that only pushes.
fn push_server<A: Api>() -> (A::Service, A::Server) {
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    let handler = |client: &A::Client| drop(client.wait_hangup(INFINITE));
    (server.serve(&[], Box::new(handler)).unwrap(), server)
}

/// V3: every live connection gets every message whole, and who has left is no matter.
fn a_broadcast_reaches_all<A: Api>() {
    let (service, server) = push_server::<A>();
    assert_eq!(service.broadcast(b"nobody there"), (0, 0));
    let clients: Vec<_> = (0..50).map(|_| A::connect(&server.endpoint(), &[]).unwrap()).collect();
    eventually("all are served", || service.connections() == 50);
    for i in 0..20 {
        assert_eq!(service.broadcast(format!("news {i}\n").as_bytes()), (50, 0));
    }
    for client in &clients {
        for i in 0..20 {
            assert_eq!(client.read_line(64).unwrap(), format!("news {i}"));
        }
    }
    drop(clients);
    eventually("all have left", || service.connections() == 0);
    assert_eq!(service.broadcast(b"nobody there"), (0, 0));
}

/// V3: a client that does not keep up is reset; it delays nobody, and the others get all.
fn a_slow_reader_is_cut_and_delays_nobody<A: Api>() {
    const MESSAGE: usize = 64 << 10;
    let (service, server) = push_server::<A>();
    let slow = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
    let readers: Vec<_> =
        (0..5).map(|_| TcpStream::connect(("127.0.0.1", server.port())).unwrap()).collect();
    eventually("all are served", || service.connections() == 6);
    let (mut rounds, mut cut) = (0, 0);
    thread::scope(|scope| {
        let reading: Vec<_> = readers
            .iter()
            .map(|reader| {
                scope.spawn(move || {
                    let mut all = 0;
                    let mut buf = vec![0; MESSAGE];
                    loop {
                        match (&mut &*reader).read(&mut buf).unwrap() {
                            0 => return all,
                            n => all += n,
                        }
                    }
                })
            })
            .collect();
        while cut == 0 {
            let ((sent, now_cut), took) = timed(|| service.broadcast(&[0; MESSAGE]));
            assert!(took < Duration::from_secs(1), "{took:?}");
            assert_eq!(sent + now_cut, 6);
            rounds += 1;
            cut += now_cut;
            assert!(rounds < 10_000, "nobody was cut");
            // The quick ones have it all before the next: their buffers never fill.
            eventually("the quick ones have read", || {
                readers
                    .iter()
                    .all(|r| system::readable_bytes(std::os::fd::AsRawFd::as_raw_fd(r)) == 0)
            });
        }
        assert_eq!(cut, 1, "only the slow one");
        eventually("its reason is known", || {
            service.stats().ends.contains(&(keepsock::End::Overrun, 1))
        });
        assert_eq!(service.drain(10_000).unwrap().1, 0);
        for reader in reading {
            assert_eq!(reader.join().unwrap(), rounds * MESSAGE);
        }
    });
    let e = (&mut &slow).read_to_end(&mut Vec::new()).unwrap_err();
    assert_eq!(e.kind(), std::io::ErrorKind::ConnectionReset);
}

/// V3, T1: what a handler writes and what is broadcast do not cut each other; and a
/// broadcast does not wait long for a handler that is stuck in a write.
fn a_broadcast_does_not_cut_another_write<A: Api>() {
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    let own = [b"own ".repeat(5000), vec![b'\n']].concat();
    let news = [b"news".repeat(100), vec![b'\n']].concat();
    let mine = own.clone();
    let handler = move |client: &A::Client| while client.write_all(&mine).is_ok() {};
    let service = server.serve(&[], Box::new(handler)).unwrap();
    let client = A::connect(&server.endpoint(), &[Opt::CloseTimeout(0)]).unwrap();
    eventually("it is served", || service.connections() == 1);
    let stop = std::sync::atomic::AtomicBool::new(false);
    thread::scope(|scope| {
        // Until the client has read five of them, or could not keep up and was cut.
        let broadcaster = scope.spawn(|| {
            while !stop.load(Ordering::Acquire) && service.broadcast(&news).1 == 0 {
                thread::yield_now();
            }
        });
        let (mut others, mut lines) = (0, 0);
        while others < 5 {
            match client.read_until(b'\n', own.len()) {
                Ok(line) => {
                    assert!(line == own || line == news, "a message was cut");
                    others += u32::from(line == news);
                    lines += 1;
                }
                Err(failure) => {
                    assert!(failure.is(ErrorKind::Reset), "{failure:?}");
                    break;
                }
            }
        }
        assert!(lines > 0);
        stop.store(true, Ordering::Release);
        broadcaster.join().unwrap();
    });
    client.abort();
    // Nobody reads: its handler is stuck in a write, and is cut.
    promptly(Duration::from_millis(250), || {
        eventually("the one before has left", || service.connections() == 0);
        let _stuck = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
        eventually("it is served", || service.connections() == 1);
        let (mut worst, mut cut) = (Duration::ZERO, 0);
        while cut == 0 {
            let (counts, took) = timed(|| service.broadcast(&news));
            (worst, cut) = (worst.max(took), counts.1);
        }
        worst
    });
}

/// V7: a handler may broadcast to all, itself included.
fn a_broadcast_from_inside_a_handler<A: Api>() {
    let service = place::<A>();
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    let handler = move |client: &A::Client| {
        while let Ok(line) = client.read_line(64) {
            there(service).broadcast(format!("{line}\n").as_bytes());
        }
    };
    service.set(server.serve(&[], Box::new(handler)).unwrap()).ok().unwrap();
    let clients: Vec<_> = (0..3).map(|_| served::<A>(&server)).collect();
    // Each also heard the hellos of those after it.
    for (i, client) in clients.iter().enumerate() {
        for _ in i + 1..3 {
            assert_eq!(client.read_line(64).unwrap(), "hello");
        }
    }
    clients[1].write_all(b"to all\n").unwrap();
    for client in &clients {
        assert_eq!(client.read_line(64).unwrap(), "to all");
    }
    assert_eq!(there(service).drain(10_000).unwrap(), (3, 0));
}

/// V1, in Rust only (a panic cannot leave a C handler): a handler that panics costs its
/// own connection, by a reset, and nobody else's.
#[test]
fn a_panic_costs_one_connection() {
    let _limit = common::Limit::new("a_panic_costs_one_connection");
    let server = keepsock::ServerSocket::listen("127.0.0.1:0").unwrap();
    let service = server
        .serve(|client| {
            client.write_all(b"x").unwrap();
            let line = client.read_line(64).unwrap();
            assert!(line != "panic", "as asked");
            client.write_all(b"fine\n").unwrap();
        })
        .unwrap();
    let connect = || {
        let mut client = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
        client.read_exact(&mut [0; 1]).unwrap();
        client
    };
    let mut other = connect();
    for _ in 0..3 {
        let mut client = connect();
        client.write_all(b"panic\n").unwrap();
        let e = client.read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(e.kind(), std::io::ErrorKind::ConnectionReset);
    }
    other.write_all(b"hello\n").unwrap();
    other.shutdown(Shutdown::Write).unwrap();
    let mut text = String::new();
    other.read_to_string(&mut text).unwrap();
    assert_eq!(text, "fine\n");
    eventually("all have left", || service.connections() == 0);
    assert_eq!(service.drain(Duration::from_secs(5)).unwrap().cut, 0);
}

/// A connection from a loopback address of the test's choice.
fn from<A: Api>(server: &A::Server, address: &str) -> Outcome<A::Client> {
    let local = format!("{address}:0");
    A::connect(&server.endpoint(), &[Opt::Local(&local), Opt::CloseTimeout(0)])
}

/// That it is served: it gets its own words back.
fn is_served<A: Api>(client: &A::Client) -> bool {
    client.write_all(b"hello\n").is_ok() && client.read_line(64).is_ok_and(|l| l == "hello")
}

/// V4: so many of one address; others are not concerned, refusals are counted, and who leaves
/// makes room.
fn one_address_has_so_many<A: Api>() {
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    let options = [Serve::PerAddress(2)];
    let service = server.serve(&options, Box::new(echo::<A>)).unwrap();
    let (one, other) = (A::own_address(40), A::own_address(41));
    let first = from::<A>(&server, &one).unwrap();
    let second = from::<A>(&server, &one).unwrap();
    assert!(is_served::<A>(&first) && is_served::<A>(&second));
    for refused in 1..=3 {
        let third = from::<A>(&server, &one);
        fails(third.and_then(|c| c.read(&mut [0; 8])), ErrorKind::Reset);
        assert_eq!((server.counters().crowded, server.counters().refused), (refused, 0));
    }
    assert!(is_served::<A>(&from::<A>(&server, &other).unwrap()));
    assert!(is_served::<A>(&first));
    drop(second);
    eventually("there is room", || {
        from::<A>(&server, &one).is_ok_and(|client| is_served::<A>(&client))
    });
    drop(first);
    drop(service);
}

/// V4: CIDR lists; what is denied is so whatever allows it.
fn networks_that_may_connect<A: Api>() {
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    let options =
        [Serve::Allow("127.83.0.0/16"), Serve::Allow("::1"), Serve::Deny("127.83.0.0/17")];
    let service = server.serve(&options, Box::new(echo::<A>)).unwrap();
    // 127.83.1.x and 127.83.2.x are in the part that is denied.
    for (address, denied) in [("127.83.200.1", 0), (&*A::own_address(42), 1), ("127.0.0.1", 2)] {
        let client = from::<A>(&server, address);
        if denied == 0 {
            assert!(is_served::<A>(&client.unwrap()));
        } else {
            fails(client.and_then(|c| c.read(&mut [0; 8])), ErrorKind::Reset);
        }
        assert_eq!(server.counters().denied, denied);
    }
    drop(service);
}

/// E2: named, and nothing is served.
fn a_network_that_is_none<A: Api>() {
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    for wrong in [Serve::Allow("example.com"), Serve::Deny("10.0.0.0/33"), Serve::PerAddress(0)] {
        let served = server.serve(&[wrong], Box::new(echo::<A>)).map(drop);
        fails(served, ErrorKind::InvalidArgument);
    }
    assert!(server.serve(&[], Box::new(echo::<A>)).is_ok());
}

/// V4: the time to the first byte; who has spoken is not held to it.
fn a_client_that_says_nothing<A: Api>() {
    let server = A::listen("127.0.0.1:0", &[Opt::FirstByteLimit(100)]).unwrap();
    let (tell, told) = channel();
    let tell = Mutex::new(tell);
    let handler = move |client: &A::Client| {
        let error = loop {
            match client.read_line(64) {
                Ok(line) => client.write_all(format!("{line}\n").as_bytes()).unwrap(),
                Err(failure) => break failure,
            }
        };
        tell.lock().unwrap().send((client.five_tuple().remote.1, error.status)).unwrap();
    };
    let service = server.serve(&[], Box::new(handler)).unwrap();
    let silent = A::connect(&server.endpoint(), &[Opt::CloseTimeout(0)]).unwrap();
    let speaks = A::connect(&server.endpoint(), &[Opt::CloseTimeout(0)]).unwrap();
    assert!(is_served::<A>(&speaks));
    let (port, status) = told.recv_timeout(Duration::from_secs(5)).unwrap();
    assert_eq!((port, status), (silent.five_tuple().local.1, ErrorKind::IdleLimit.code()));
    told.recv_timeout(Duration::from_millis(200)).unwrap_err();
    assert!(is_served::<A>(&speaks));
    drop((silent, speaks, service));
}

/// V3: the server pushes to one client at any moment, from a thread that is none of its handlers;
/// when the handler has ended, so has the connection, for every owner.
fn pushing_to_one_client_from_elsewhere<A: Api>() {
    let server = A::listen("127.0.0.1:0", &[Opt::CloseTimeout(0)]).unwrap();
    let (lend, lent) = channel();
    let lend = Mutex::new(lend);
    let handler = move |client: &A::Client| {
        lend.lock().unwrap().send(client.another()).unwrap();
        let _ = client.wait_hangup(INFINITE);
    };
    let service = server.serve(&[], Box::new(handler)).unwrap();
    let wait = Duration::from_secs(5);
    let first = A::connect(&server.endpoint(), &[Opt::CloseTimeout(0)]).unwrap();
    let to_first: A::Client = lent.recv_timeout(wait).unwrap();
    let second = A::connect(&server.endpoint(), &[Opt::CloseTimeout(0)]).unwrap();
    let to_second: A::Client = lent.recv_timeout(wait).unwrap();
    for i in 0..10 {
        to_second.write_all(format!("{i} for the second\n").as_bytes()).unwrap();
        assert_eq!(second.read_line(64).unwrap(), format!("{i} for the second"));
    }
    to_first.write_all(b"one for the first\n").unwrap();
    assert_eq!(first.read_line(64).unwrap(), "one for the first");
    drop(to_first);
    assert_eq!(service.connections(), 2, "an owner less is no end");
    second.close().unwrap();
    eventually("the handler has ended", || service.connections() == 1);
    fails(to_second.write_all(b"x"), ErrorKind::Closed);
    assert_eq!(to_second.five_tuple().remote, second.five_tuple().local);
    assert_eq!(to_second.end(), Some(keepsock::End::ClosedByPeer));
    drop((first, service));
}

/// V1: a fixed pool: its threads are there from the beginning, serve one connection each, and
/// stay; who comes when all are at work waits, or is refused.
fn a_fixed_pool<A: Api>() {
    for refuse in [false, true] {
        let server = A::listen("127.0.0.1:0", &[]).unwrap();
        let options =
            if refuse { &[Serve::Threads(3), Serve::Refuse][..] } else { &[Serve::Threads(3)] };
        let threads = Arc::new(Mutex::new(std::collections::HashSet::new()));
        let seen = threads.clone();
        let handler: common::Handler<A> = Box::new(move |client| {
            seen.lock().unwrap().insert(thread::current().id());
            while let Ok(line) = client.read_line(64) {
                client.write_all(format!("{line}\n").as_bytes()).unwrap();
            }
        });
        let service = server.serve(options, handler).unwrap();
        let clients: Vec<_> = (0..3).map(|_| served::<A>(&server)).collect();
        assert_eq!(service.connections(), 3);
        let fourth = A::connect(&server.endpoint(), &[Opt::CloseTimeout(0), Opt::ReadTimeout(100)]);
        let answer = fourth.and_then(|fourth| {
            fourth.write_all(b"hello\n")?;
            fourth.read_line(64)
        });
        fails(answer, if refuse { ErrorKind::Reset } else { ErrorKind::TimedOut });
        drop(clients);
        eventually("they have left", || service.connections() == 0);
        for _ in 0..20 {
            served::<A>(&server);
            // On a busy machine three that have gone may still be at work, and the next is refused.
            eventually("it has left", || service.connections() == 0);
        }
        service.drain(10_000).unwrap();
        // One more where it is to refuse while three are at work.
        assert!(threads.lock().unwrap().len() <= 3 + usize::from(refuse));
    }
}
