//! V1: one thread per connection, with a maximum. V3: broadcast. V5: drain. V7: calls from inside a
//! handler.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::Duration;

use crate::support;
use crate::support::timing::undisturbed;
use crate::support::{
    Api, Client, INFINITE, Opt, Outcome, Serve, Server, Service, TRANSPORTS, TempDir, Token,
    Transport, eventually, fails, promptly, somewhere, system, timed,
};
use keepsock::{CloseReason, ErrorKind};

both_apis![
    each_connection_is_served_by_its_own_thread,
    full_server_with_wait_policy_delays_clients,
    full_server_with_reject_policy_rejects_clients,
    serve_with_zero_connections_is_rejected,
    handler_that_returns_closes_its_connection,
    drain_lets_handlers_send_a_last_message,
    drain_without_timeout_waits_for_the_last_connection,
    drain_past_deadline_aborts_connections,
    drain_without_connections_returns_at_once,
    drain_ends_each_kind_of_read,
    stop_keeps_open_connections,
    stop_inside_handler_succeeds,
    drain_inside_handler_is_rejected,
    wait_ends_when_token_is_fired,
    wait_ends_when_server_closes,
    free_aborts_connections_and_waits_for_handlers,
    broadcast_reaches_each_connection,
    slow_reader_of_broadcast_is_disconnected,
    fixed_pool_serves_one_connection_per_thread,
    broadcast_does_not_split_another_write,
    reset_found_by_broadcast_is_the_close_reason,
    broadcast_inside_handler_reaches_all,
    broadcast_and_drain_do_not_abort_a_close,
    broadcast_does_not_abort_a_close_during_read,
    serve_ignores_the_accept_timeout,
    service_ended_by_token_accepts_no_more,
    connections_beyond_address_maximum_are_rejected,
    denied_networks_take_precedence,
    network_ipv4_mapped_applies_to_ipv4_clients,
    networks_apply_to_ip_clients_of_a_mixed_server,
    serve_with_invalid_network_fails,
    first_byte_timeout_disconnects_silent_client,
    push_to_client_from_other_thread_succeeds,
    close_reason_is_known_and_counted_when_a_close_begins,
];

/// Echoes lines until the connection ends, and sends a last line when the service drains.
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

/// The bytes of a reply that exceeds the buffers of its reader.
const REPLY: usize = 1 << 20;

/// Writes a reply and reports it to the test.
fn write_reply<A: Api>(client: &A::Client, written: &Mutex<Sender<()>>) {
    system::force_send_buffer(client.fd().unwrap(), 4 << 20);
    client.write_all(&vec![b'r'; REPLY]).unwrap();
    written.lock().unwrap().send(()).unwrap();
}

/// V3, V5, I3: neither a broadcast nor a drain aborts a connection that is closing gracefully. Its
/// client, which still sends, gets the whole reply.
fn broadcast_and_drain_do_not_abort_a_close<A: Api>() {
    for drains in [false, true] {
        let server = A::listen("127.0.0.1:0", &[Opt::CloseTimeout(20_000)]).unwrap();
        let (written, told) = channel();
        let written = Mutex::new(written);
        let reply = move |client: &A::Client| write_reply::<A>(client, &written);
        let service = Arc::new(server.serve(&[], Box::new(reply)).unwrap());
        let client = A::connect(&server.endpoint(), &[Opt::CloseTimeout(0)]).unwrap();
        client.write_all(&[b'q'; 10_000]).unwrap();
        // The handler is about to return. A broadcast may abort a write.
        told.recv().unwrap();
        let mut got = 0;
        thread::scope(|scope| {
            let ending = scope.spawn(|| {
                if drains {
                    assert_eq!(service.drain(20_000).unwrap().1, 0, "aborted during its close");
                } else {
                    for _ in 0..20 {
                        assert_eq!(
                            service.broadcast(b"news").1,
                            0,
                            "disconnected during its close"
                        );
                        thread::sleep(Duration::from_millis(2));
                    }
                }
            });
            let mut buf = vec![0; 64 << 10];
            loop {
                match client.read(&mut buf) {
                    Ok(0) => break,
                    Ok(n) => got += n,
                    // A drain reads no more data. Bytes that this side sends later are answered by
                    // RST, but not before the whole reply has arrived.
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
        // The broadcast before the end of the handler has also arrived.
        assert_eq!((got - REPLY) % 4, 0, "{got} bytes");
    }
}

/// V3, T3: a broadcast does not abort a connection that its handler closes while another thread
/// reads.
fn broadcast_does_not_abort_a_close_during_read<A: Api>() {
    let server = A::listen("127.0.0.1:0", &[Opt::CloseTimeout(20_000)]).unwrap();
    let (written, told) = channel();
    let written = Mutex::new(written);
    let reply = move |client: &A::Client| {
        write_reply::<A>(client, &written);
        let (outcome, _) =
            support::while_waiting(|| client.read(&mut [0; 8]), || client.close().unwrap());
        fails(outcome, ErrorKind::Closed);
    };
    let service = server.serve(&[], Box::new(reply)).unwrap();
    let client = A::connect(&server.endpoint(), &[Opt::CloseTimeout(0)]).unwrap();
    // A broadcast may abort a write.
    told.recv().unwrap();
    let mut got = 0;
    // The reply exceeds this side's buffer, so the close waits for its delivery during most of
    // these broadcasts.
    for _ in 0..20 {
        assert_eq!(service.broadcast(b"news").1, 0, "disconnected during its close");
        thread::sleep(Duration::from_millis(5));
    }
    let mut buf = vec![0; 64 << 10];
    while let Ok(n @ 1..) = client.read(&mut buf) {
        got += n;
    }
    assert_eq!((got - REPLY) % 4, 0, "{got} bytes");
}

/// V1: the accept timeout and non-blocking mode apply to callers of accept. A service waits without
/// limit.
fn serve_ignores_the_accept_timeout<A: Api>() {
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    server.set_accept_timeout(10).unwrap();
    server.set_nonblocking(true).unwrap();
    let service = server.serve(&[], Box::new(echo::<A>)).unwrap();
    fails(service.wait_stopped(100), ErrorKind::TimedOut);
    let _client = served::<A>(&server);
    service.drain(60_000).unwrap();
}

/// V5, T2: a service that its token has ended stays ended when the token is reset and a handler
/// returns.
fn service_ended_by_token_accepts_no_more<A: Api>() {
    let token = A::token();
    let server = A::listen("127.0.0.1:0", &[Opt::Cancel(&token)]).unwrap();
    let service = server.serve(&[], Box::new(echo::<A>)).unwrap();
    let client = served::<A>(&server);
    token.fire();
    service.wait_stopped(60_000).unwrap();
    token.reset();
    client.close().unwrap();
    eventually("the handler has returned", || service.connections() == 0);
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
    _dir: Option<support::TempDir>,
}

/// Returns a client that got a reply, so its handler runs.
fn served<A: Api>(server: &A::Server) -> A::Client {
    let client = A::connect(&server.endpoint(), &[Opt::CloseTimeout(0)]).unwrap();
    client.write_all(b"hello\n").unwrap();
    assert_eq!(client.read_line(64).unwrap(), "hello");
    client
}

/// Handlers that report each connection and block until the test releases them.
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

/// V1: all clients are served at once, although each handler waits for the last one.
fn each_connection_is_served_by_its_own_thread<A: Api>() {
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
        eventually("all connections are closed", || service.connections() == 0);
    }
}

/// V1: a client beyond the maximum waits, and is served when another connection has closed.
fn full_server_with_wait_policy_delays_clients<A: Api>() {
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
    assert_eq!(server.stats().rejected, 0);
    drop(let_go);
    drop(clients);
    eventually("all connections are closed", || service.connections() == 0);
}

/// V1: with the reject policy, a client beyond the maximum is rejected at once and counted. The
/// other connections continue.
fn full_server_with_reject_policy_rejects_clients<A: Api>() {
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    let options = [Serve::Max(2), Serve::Reject];
    let service = server.serve(&options, Box::new(echo::<A>)).unwrap();
    let first = served::<A>(&server);
    let second = served::<A>(&server);
    for rejected in 1..=3 {
        // The reset may arrive before connect has read its result.
        let client = A::connect(&server.endpoint(), &[]);
        fails(client.and_then(|c| c.read(&mut [0; 8])), ErrorKind::Reset);
        assert_eq!(server.stats().rejected, rejected);
    }
    assert_eq!(service.connections(), 2);
    first.write_all(b"still here\n").unwrap();
    assert_eq!(first.read_line(64).unwrap(), "still here");
    drop(second);
    eventually("an entry is free", || service.connections() == 1);
    served::<A>(&server);
}

/// E2: a maximum of zero and a closed server are rejected.
fn serve_with_zero_connections_is_rejected<A: Api>() {
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    let serve = |options: &[Serve]| server.serve(options, Box::new(echo::<A>)).map(drop);
    fails(serve(&[Serve::Max(0)]), ErrorKind::InvalidArgument);
    server.close();
    fails(serve(&[]), ErrorKind::Closed);
}

/// E2, V4: a limit of no connection per address is rejected in Rust. In C, 0 is the default.
#[test]
fn serve_with_zero_connections_per_address_is_rejected() {
    let server = keepsock::ServerSocket::listen("127.0.0.1:0").unwrap();
    let options = keepsock::ServeOptions::new().max_per_address(0);
    let threads = server.serve_with(&options, |_| {}).err().unwrap();
    let events = server.serve_events(&options, |_: &keepsock::Connection, _: &[u8]| {});
    for error in [threads, events.err().unwrap()] {
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.to_string().contains("max_per_address must be greater than zero"), "{error}");
    }
}

/// V1, I3: the connection closes gracefully when its handler returns.
fn handler_that_returns_closes_its_connection<A: Api>() {
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
    eventually("all connections are closed", || service.connections() == 0);
    assert_eq!(server.stats().accepted, 5);
}

/// V5: each open connection is notified of the drain: its read fails with "draining", and its
/// writes still succeed. The peer gets the last line and then the end of stream.
fn drain_lets_handlers_send_a_last_message<A: Api>() {
    for transport in TRANSPORTS {
        let s = echo_server::<A>(transport);
        let clients: Vec<_> = (0..4).map(|_| served::<A>(&s.server)).collect();
        let (counts, took) = timed(|| s.service.drain(60_000).unwrap());
        assert_eq!(counts, (4, 0));
        assert!(took < Duration::from_secs(30), "{took:?}");
        for client in &clients {
            assert_eq!(client.read_line(64).unwrap(), "goodbye");
            assert_eq!(client.read(&mut [0; 8]).unwrap(), 0);
        }
        assert_eq!(s.service.connections(), 0);
        s.service.wait_stopped(INFINITE).unwrap();
        A::connect(&s.server.endpoint(), &[]).map(drop).unwrap_err();
        assert_eq!(s.service.drain(60_000).unwrap(), (4, 0));
    }
}

/// V5: without a timeout, a drain and a wait for connections take as long as the last connection.
fn drain_without_timeout_waits_for_the_last_connection<A: Api>() {
    for drains in [true, false] {
        let s = echo_server::<A>(Transport::Tcp);
        let client = served::<A>(&s.server);
        thread::scope(|scope| {
            let ended = scope.spawn(|| match drains {
                true => s.service.drain(INFINITE).unwrap().1,
                false => s.service.stop_and_wait(INFINITE).unwrap(),
            });
            if drains {
                assert_eq!(client.read_line(64).unwrap(), "goodbye");
            }
            client.close().unwrap();
            assert_eq!(ended.join().unwrap(), 0);
        });
    }
}

/// V5: at the deadline the remaining connections are aborted. The result counts both kinds.
fn drain_past_deadline_aborts_connections<A: Api>() {
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    let handler = |client: &A::Client| {
        client.write_all(b"x").unwrap();
        if client.read_line(64).is_ok_and(|line| line == "stubborn") {
            // This handler ignores the drain. Only an abort ends it.
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
    let (counts, took) = timed(|| service.drain(5000).unwrap());
    assert_eq!(counts, (3, 2));
    assert!(took >= Duration::from_millis(5000), "{took:?}");
    assert!(took < Duration::from_secs(30), "{took:?}");
    for mut client in stubborn {
        let e = client.read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(e.kind(), std::io::ErrorKind::ConnectionReset);
    }
    assert_eq!(service.connections(), 0);
}

/// V5: a drain without connections returns at once.
fn drain_without_connections_returns_at_once<A: Api>() {
    promptly(Duration::from_millis(50), || {
        let s = echo_server::<A>(Transport::Tcp);
        let (counts, took) = timed(|| s.service.drain(60_000).unwrap());
        assert_eq!(counts, (0, 0));
        took
    });
}

/// V5: each read function returns "draining", and not an end of stream. Earlier bytes remain
/// readable.
fn drain_ends_each_kind_of_read<A: Api>() {
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
            assert_eq!(service.drain(60_000).unwrap(), (1, 0));
            fails(told.recv().unwrap(), ErrorKind::Draining);
        }
    }
}

/// V5: stop ends accepting only.
fn stop_keeps_open_connections<A: Api>() {
    for transport in TRANSPORTS {
        let s = echo_server::<A>(transport);
        fails(s.service.wait_stopped(0), ErrorKind::TimedOut);
        fails(s.service.wait_stopped(20), ErrorKind::TimedOut);
        let client = served::<A>(&s.server);
        s.service.stop();
        s.service.stop();
        s.service.wait_stopped(INFINITE).unwrap();
        let refuses = || A::connect(&s.server.endpoint(), &[]).map(drop).is_err();
        // Other systems listen until the last accept has left.
        assert!(refuses() || !cfg!(keepsock_linux));
        eventually("the server refuses", refuses);
        client.write_all(b"still here\n").unwrap();
        assert_eq!(client.read_line(64).unwrap(), "still here");
        assert_eq!(s.service.connections(), 1);
        assert_eq!(s.service.drain(60_000).unwrap(), (1, 0));
    }
}

/// A cell for the service that its own handlers may use. The service is never freed, because its
/// last owner must not be a handler.
fn place<A: Api>() -> &'static OnceLock<A::Service> {
    Box::leak(Box::new(OnceLock::new()))
}

/// Waits until the service is in its cell, because a handler may run before.
fn there<T>(place: &OnceLock<T>) -> &T {
    eventually("the cell has the service", || place.get().is_some());
    place.get().unwrap()
}

/// V7: a handler may stop its own service.
fn stop_inside_handler_succeeds<A: Api>() {
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
    there(service).wait_stopped(INFINITE).unwrap();
    fails(server.accept(), ErrorKind::Closed);
}

/// V7, V5: a drain inside a handler would wait for itself and is rejected.
fn drain_inside_handler_is_rejected<A: Api>() {
    let service = place::<A>();
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    let (tell, told) = channel();
    let tell = Mutex::new(tell);
    let handler = move |_: &A::Client| {
        tell.lock().unwrap().send(there(service).drain(60_000)).unwrap();
    };
    service.set(server.serve(&[], Box::new(handler)).unwrap()).ok().unwrap();
    let _client = A::connect(&server.endpoint(), &[]).unwrap();
    let failure = fails(told.recv().unwrap(), ErrorKind::WrongState);
    assert!(failure.message.contains("inside a handler"), "{failure:?}");
    // The rejected drain has stopped nothing.
    let _second = A::connect(&server.endpoint(), &[]).unwrap();
    fails(told.recv().unwrap(), ErrorKind::WrongState);
    there(service).drain(60_000).unwrap();
}

/// T2: main() waits for the service until a token is fired.
fn wait_ends_when_token_is_fired<A: Api>() {
    promptly(Duration::from_millis(50), || {
        let token = A::token();
        let server = A::listen("127.0.0.1:0", &[Opt::Cancel(&token)]).unwrap();
        let service = server.serve(&[], Box::new(echo::<A>)).unwrap();
        let client = served::<A>(&server);
        let (outcome, took) =
            support::while_waiting(|| service.wait_stopped(INFINITE), || token.fire());
        outcome.unwrap();
        client.write_all(b"still here\n").unwrap();
        assert_eq!(client.read_line(64).unwrap(), "still here");
        assert_eq!(service.drain(60_000).unwrap(), (1, 0));
        took
    });
}

/// V5: closing the server socket also ends accepting, without an error.
fn wait_ends_when_server_closes<A: Api>() {
    let s = echo_server::<A>(Transport::Tcp);
    let _client = served::<A>(&s.server);
    let (outcome, _) =
        support::while_waiting(|| s.service.wait_stopped(INFINITE), || s.server.close());
    outcome.unwrap();
}

/// E2: after a service is freed no handler runs. Open connections are aborted.
fn free_aborts_connections_and_waits_for_handlers<A: Api>() {
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

/// Clients that only read, and a service that only pushes.
fn push_server<A: Api>() -> (A::Service, A::Server) {
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    let handler = |client: &A::Client| drop(client.wait_hangup(INFINITE));
    (server.serve(&[], Box::new(handler)).unwrap(), server)
}

/// V3: each open connection gets each message whole. Closed connections do not matter.
fn broadcast_reaches_each_connection<A: Api>() {
    let (service, server) = push_server::<A>();
    assert_eq!(service.broadcast(b"nobody there"), (0, 0));
    let clients: Vec<_> = (0..50).map(|_| A::connect(&server.endpoint(), &[]).unwrap()).collect();
    eventually("all connections are served", || service.connections() == 50);
    for i in 0..20 {
        assert_eq!(service.broadcast(format!("news {i}\n").as_bytes()), (50, 0));
    }
    for client in &clients {
        for i in 0..20 {
            assert_eq!(client.read_line(64).unwrap(), format!("news {i}"));
        }
    }
    drop(clients);
    eventually("all connections are closed", || service.connections() == 0);
    assert_eq!(service.broadcast(b"nobody there"), (0, 0));
}

/// V3: a slow consumer is disconnected. It delays no other client, and the others get all messages.
fn slow_reader_of_broadcast_is_disconnected<A: Api>() {
    const MESSAGE: usize = 64 << 10;
    let (service, server) = push_server::<A>();
    let slow = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
    let readers: Vec<_> = (0..5)
        .map(|_| (TcpStream::connect(("127.0.0.1", server.port())).unwrap(), AtomicUsize::new(0)))
        .collect();
    eventually("all connections are served", || service.connections() == 6);
    let (mut rounds, mut cut) = (0, 0);
    thread::scope(|scope| {
        let reading: Vec<_> = readers
            .iter()
            .map(|(reader, received)| {
                scope.spawn(move || {
                    let mut buf = vec![0; MESSAGE];
                    loop {
                        match (&mut &*reader).read(&mut buf).unwrap() {
                            0 => return received.load(Ordering::SeqCst),
                            n => drop(received.fetch_add(n, Ordering::SeqCst)),
                        }
                    }
                })
            })
            .collect();
        while cut == 0 {
            let ((sent, now_cut), took) = timed(|| service.broadcast(&[0; MESSAGE]));
            assert!(took < Duration::from_secs(10), "{took:?}");
            assert_eq!(sent + now_cut, 6);
            rounds += 1;
            cut += now_cut;
            assert!(rounds < 10_000, "no client was disconnected");
            // The fast clients have read each message before the next one, so their buffers never
            // fill.
            eventually("the fast clients have read", || {
                let all = rounds * MESSAGE;
                readers.iter().all(|(_, received)| received.load(Ordering::SeqCst) == all)
            });
        }
        assert_eq!(cut, 1, "only the slow client");
        eventually("the close reason is counted", || {
            service.stats().ends.contains(&(keepsock::CloseReason::SlowConsumer, 1))
        });
        assert_eq!(service.drain(60_000).unwrap().1, 0);
        for reader in reading {
            assert_eq!(reader.join().unwrap(), rounds * MESSAGE);
        }
    });
    let e = (&mut &slow).read_to_end(&mut Vec::new()).unwrap_err();
    assert_eq!(e.kind(), std::io::ErrorKind::ConnectionReset);
}

/// V3, T1: a broadcast and a handler's write do not split each other. A broadcast does not wait
/// long for a handler that is blocked in a write.
fn broadcast_does_not_split_another_write<A: Api>() {
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    let own = [b"own ".repeat(5000), vec![b'\n']].concat();
    let news = [b"news".repeat(100), vec![b'\n']].concat();
    let mine = own.clone();
    let handler = move |client: &A::Client| while client.write_all(&mine).is_ok() {};
    let service = server.serve(&[], Box::new(handler)).unwrap();
    let client = A::connect(&server.endpoint(), &[Opt::CloseTimeout(0)]).unwrap();
    eventually("the connection is served", || service.connections() == 1);
    let stop = std::sync::atomic::AtomicBool::new(false);
    thread::scope(|scope| {
        // Until the client has read five broadcasts, or was disconnected as a slow consumer.
        let broadcaster = scope.spawn(|| {
            while !stop.load(Ordering::Acquire) && service.broadcast(&news).1 == 0 {
                thread::yield_now();
            }
        });
        let (mut others, mut lines) = (0, 0);
        while others < 5 {
            match client.read_until(b'\n', own.len()) {
                Ok(line) => {
                    assert!(line == own || line == news, "a message was split");
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
    // The client reads nothing: its handler is blocked in a write, and is aborted.
    promptly(Duration::from_millis(250), || {
        eventually("the previous connection is closed", || service.connections() == 0);
        let _stuck = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
        eventually("the connection is served", || service.connections() == 1);
        let (mut worst, mut cut) = (Duration::ZERO, 0);
        while cut == 0 {
            let (counts, took) = timed(|| service.broadcast(&news));
            (worst, cut) = (worst.max(took), counts.1);
        }
        worst
    });
    eventually("the last connection is closed", || service.connections() == 0);
    let ends = service.stats().ends;
    assert!(ends.iter().any(|(end, _)| *end == CloseReason::SlowConsumer), "{ends:?}");
    assert!(ends.iter().all(|(end, _)| *end != CloseReason::Local), "{ends:?}");
}

/// K7: a broadcast that finds the reset of a peer records it. No call of the handler can find it later.
fn reset_found_by_broadcast_is_the_close_reason<A: Api>() {
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    let (leave, left) = channel();
    let left = Mutex::new(left);
    let handler = move |_: &A::Client| left.lock().unwrap().recv().unwrap();
    let service = server.serve(&[], Box::new(handler)).unwrap();
    let peer = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
    eventually("the connection is served", || service.connections() == 1);
    system::reset(peer);
    eventually("the broadcast finds the reset", || service.broadcast(b"news").1 == 1);
    leave.send(()).unwrap();
    eventually("the connection is closed", || service.connections() == 0);
    assert_eq!(service.stats().ends, [(CloseReason::PeerReset, 1)]);
}

/// V7: a handler may broadcast to all connections, including its own.
fn broadcast_inside_handler_reaches_all<A: Api>() {
    let service = place::<A>();
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    let handler = move |client: &A::Client| {
        while let Ok(line) = client.read_line(64) {
            there(service).broadcast(format!("{line}\n").as_bytes());
        }
    };
    service.set(server.serve(&[], Box::new(handler)).unwrap()).ok().unwrap();
    let clients: Vec<_> = (0..3).map(|_| served::<A>(&server)).collect();
    // Each client also received the broadcasts of later connections.
    for (i, client) in clients.iter().enumerate() {
        for _ in i + 1..3 {
            assert_eq!(client.read_line(64).unwrap(), "hello");
        }
    }
    clients[1].write_all(b"to all\n").unwrap();
    for client in &clients {
        assert_eq!(client.read_line(64).unwrap(), "to all");
    }
    assert_eq!(there(service).drain(60_000).unwrap(), (3, 0));
}

/// V1: a panic of a handler aborts its own connection, and no other (Rust only: a C handler cannot
/// panic).
#[test]
fn panic_in_handler_aborts_one_connection() {
    let _limit = support::Limit::new("panic_in_handler_aborts_one_connection");
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
    eventually("all connections are closed", || service.stats().connections == 0);
    assert_eq!(service.drain(Duration::from_secs(60)).unwrap().reset, 0);
}

/// Connects from a loopback address that the test chooses.
fn from<A: Api>(server: &A::Server, address: &str) -> Outcome<A::Client> {
    let local = format!("{address}:0");
    A::connect(&server.endpoint(), &[Opt::Local(&local), Opt::CloseTimeout(0)])
}

/// Checks that the connection is served: it gets its own bytes back.
fn is_served<A: Api>(client: &A::Client) -> bool {
    client.write_all(b"hello\n").is_ok() && client.read_line(64).is_ok_and(|l| l == "hello")
}

/// V4: the maximum per address affects only that address. Rejections are counted, and a closed
/// connection frees its entry.
fn connections_beyond_address_maximum_are_rejected<A: Api>() {
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    let options = [Serve::PerAddress(2)];
    let service = server.serve(&options, Box::new(echo::<A>)).unwrap();
    let (one, other) = (A::own_address(40), A::own_address(41));
    let first = from::<A>(&server, &one).unwrap();
    let second = from::<A>(&server, &one).unwrap();
    assert!(is_served::<A>(&first) && is_served::<A>(&second));
    for rejected in 1..=3 {
        let third = from::<A>(&server, &one);
        fails(third.and_then(|c| c.read(&mut [0; 8])), ErrorKind::Reset);
        assert_eq!((server.stats().over_address_limit, server.stats().rejected), (rejected, 0));
    }
    assert!(is_served::<A>(&from::<A>(&server, &other).unwrap()));
    assert!(is_served::<A>(&first));
    drop(second);
    eventually("an entry is free", || {
        from::<A>(&server, &one).is_ok_and(|client| is_served::<A>(&client))
    });
    drop(first);
    drop(service);
}

/// V4: CIDR lists allow and deny networks. A denied network takes precedence over an allowed one.
fn denied_networks_take_precedence<A: Api>() {
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    let options =
        [Serve::Allow("127.83.0.0/16"), Serve::Allow("::1"), Serve::Deny("127.83.0.0/17")];
    let service = server.serve(&options, Box::new(echo::<A>)).unwrap();
    // 127.83.1.x and 127.83.2.x are in the denied network.
    for (address, denied) in [("127.83.200.1", 0), (&*A::own_address(42), 1), ("127.0.0.1", 2)] {
        let client = from::<A>(&server, address);
        if denied == 0 {
            assert!(is_served::<A>(&client.unwrap()));
        } else {
            fails(client.and_then(|c| c.read(&mut [0; 8])), ErrorKind::Reset);
        }
        assert_eq!(server.stats().denied, denied);
    }
    drop(service);
}

/// L1, V4: a mapped network is the IPv4 network, also for a listener of both families.
fn network_ipv4_mapped_applies_to_ipv4_clients<A: Api>() {
    for (rule, is_denied) in [
        (Serve::Deny("::ffff:127.0.0.1"), true),
        (Serve::Deny("::ffff:127.0.0.0/104"), true),
        (Serve::Allow("::ffff:127.0.0.0/104"), false),
    ] {
        let server = A::listen("*:0", &[]).unwrap();
        let service = server.serve(&[rule], Box::new(echo::<A>)).unwrap();
        let endpoint = format!("127.0.0.1:{}", server.port());
        let client = A::connect(&endpoint, &[Opt::CloseTimeout(0), Opt::ReadTimeout(30_000)]);
        if is_denied {
            fails(client.and_then(|c| c.read(&mut [0; 8])), ErrorKind::Reset);
        } else {
            assert!(is_served::<A>(&client.unwrap()));
        }
        assert_eq!(server.stats().denied, u64::from(is_denied));
        drop(service);
    }
    let server = A::listen("*:0", &[]).unwrap();
    for wider in [Serve::Deny("::ffff:0:0/95"), Serve::Allow("::/80")] {
        fails(server.serve(&[wider], Box::new(echo::<A>)).map(drop), ErrorKind::InvalidArgument);
    }
}

/// V4: the networks apply to IP clients. Allowed users and the file's mode apply to Unix clients.
/// Denied connections are not counted as passed to the program.
fn networks_apply_to_ip_clients_of_a_mixed_server<A: Api>() {
    let dir = TempDir::new();
    let server = A::listen_all(&["127.0.0.1:0", &dir.endpoint("s")], &[]).unwrap();
    let options = [Serve::Allow("192.0.2.0/24"), Serve::PerAddress(1)];
    let service = server.serve(&options, Box::new(echo::<A>)).unwrap();
    let tcp = format!("127.0.0.1:{}", server.port());
    let options = [Opt::CloseTimeout(0), Opt::ReadTimeout(30_000)];
    let denied = A::connect(&tcp, &options);
    fails(denied.and_then(|c| c.read(&mut [0; 8])), ErrorKind::Reset);
    let unix = [(); 2].map(|()| A::connect(&dir.endpoint("s"), &options).unwrap());
    assert!(unix.iter().all(is_served::<A>));
    assert_eq!((server.stats().accepted, server.stats().denied), (2, 1));
    drop(service);
}

/// E2: an invalid network is named in the error, and the service does not start.
fn serve_with_invalid_network_fails<A: Api>() {
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    for wrong in [Serve::Allow("example.com"), Serve::Deny("10.0.0.0/33")] {
        let served = server.serve(&[wrong], Box::new(echo::<A>)).map(drop);
        fails(served, ErrorKind::InvalidArgument);
    }
    assert!(server.serve(&[], Box::new(echo::<A>)).is_ok());
}

/// V4: the first-byte timeout disconnects a client that sends nothing, and no client that has sent
/// a byte.
fn first_byte_timeout_disconnects_silent_client<A: Api>() {
    undisturbed(one_silent_client::<A>);
}

fn one_silent_client<A: Api>() {
    let server = A::listen("127.0.0.1:0", &[Opt::FirstByteTimeout(1500)]).unwrap();
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
    let (port, status) = told.recv_timeout(Duration::from_secs(30)).unwrap();
    assert_eq!((port, status), (silent.five_tuple().local.1, ErrorKind::IdleTimeout.code()));
    told.recv_timeout(Duration::from_millis(2000)).unwrap_err();
    assert!(is_served::<A>(&speaks));
    drop((silent, speaks, service));
}

/// V3: the server pushes to one client at any time from a thread other than a handler. When the
/// handler has returned, the connection is closed for every owner.
fn push_to_client_from_other_thread_succeeds<A: Api>() {
    let server = A::listen("127.0.0.1:0", &[Opt::CloseTimeout(0)]).unwrap();
    let (lend, lent) = channel();
    let lend = Mutex::new(lend);
    let handler = move |client: &A::Client| {
        lend.lock().unwrap().send(client.another()).unwrap();
        let _ = client.wait_hangup(INFINITE);
    };
    let service = server.serve(&[], Box::new(handler)).unwrap();
    let wait = Duration::from_secs(60);
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
    assert_eq!(service.connections(), 2, "the connection outlives one of its owners");
    second.close().unwrap();
    eventually("the handler has returned", || service.connections() == 1);
    fails(to_second.write_all(b"x"), ErrorKind::Closed);
    assert_eq!(to_second.five_tuple().remote, second.five_tuple().local);
    assert_eq!(to_second.close_reason(), Some(keepsock::CloseReason::PeerClosed));
    drop((first, service));
}

/// V1: the threads of a fixed pool exist from the start, serve one connection each, and remain. A
/// client beyond the pool waits or is rejected.
fn fixed_pool_serves_one_connection_per_thread<A: Api>() {
    for rejects in [false, true] {
        let server = A::listen("127.0.0.1:0", &[]).unwrap();
        let options =
            if rejects { &[Serve::Threads(3), Serve::Reject][..] } else { &[Serve::Threads(3)] };
        let threads = Arc::new(Mutex::new(std::collections::HashSet::new()));
        let seen = threads.clone();
        let handler: support::Handler<A> = Box::new(move |client| {
            seen.lock().unwrap().insert(thread::current().id());
            while let Ok(line) = client.read_line(64) {
                client.write_all(format!("{line}\n").as_bytes()).unwrap();
            }
        });
        let service = server.serve(options, handler).unwrap();
        let clients: Vec<_> = (0..3).map(|_| served::<A>(&server)).collect();
        assert_eq!(service.connections(), 3);
        // Without the policy the fourth client waits.
        let limit = if rejects { support::AWAITED } else { 100 };
        let options = [Opt::CloseTimeout(0), Opt::ReadTimeout(limit)];
        let fourth = A::connect(&server.endpoint(), &options);
        let answer = fourth.and_then(|fourth| {
            fourth.write_all(b"hello\n")?;
            fourth.read_line(64)
        });
        fails(answer, if rejects { ErrorKind::Reset } else { ErrorKind::TimedOut });
        drop(clients);
        eventually("all connections are closed", || service.connections() == 0);
        for _ in 0..20 {
            served::<A>(&server);
            // On a busy machine three closed connections may still hold their threads, and the next
            // client is rejected.
            eventually("the connection is closed", || service.connections() == 0);
        }
        service.drain(60_000).unwrap();
        // One more client where the policy rejects while three threads are busy.
        assert!(threads.lock().unwrap().len() <= 3 + usize::from(rejects));
    }
}

/// K7, V4: the close reason is known as soon as calls fail because of a close, and the service counts
/// it once: if the service closes the connection, if another thread closes it at the same time, and
/// if the handler releases the descriptor. The peer does not close its side.
fn close_reason_is_known_and_counted_when_a_close_begins<A: Api>() {
    const LONG: i64 = 100_000;
    let server = A::listen("127.0.0.1:0", &[Opt::CloseTimeout(LONG)]).unwrap();
    let (send, owners) = channel();
    let send = Mutex::new(send);
    let handler = move |client: &A::Client| {
        let mut way = [0];
        client.read_exact(&mut way).unwrap();
        client.write_all(b"x").unwrap();
        let (owner, closer) = (client.another(), client.another());
        let closes = way[0] == b'c';
        if closes {
            thread::spawn(move || drop(closer.close()));
            eventually("the other thread closes", || owner.write_all(b"").is_err());
        } else {
            drop(closer);
        }
        if way[0] == b'r' {
            drop(owner.release().unwrap());
        }
        send.lock().unwrap().send(owner).unwrap();
    };
    let service = server.serve(&[], Box::new(handler)).unwrap();
    let closed = Some(CloseReason::Local);
    for (count, way) in (1..).zip([b"c", b"r", b"s"]) {
        let mut peer = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
        peer.write_all(way).unwrap();
        peer.read_exact(&mut [0]).unwrap();
        let owner = owners.recv_timeout(Duration::from_secs(20)).unwrap();
        eventually("the close begins", || {
            let failed = owner.write_all(b"").is_err_and(|failure| failure.is(ErrorKind::Closed));
            assert!(!failed || owner.close_reason() == closed, "{:?}", owner.close_reason());
            failed
        });
        assert_eq!(owner.stats().unwrap().close_reason, closed);
        if way == b"s" {
            // The close of the service waits for the peer.
            drop(peer);
        }
        eventually("the connection is counted", || service.stats().closed == count);
        assert_eq!(service.stats().ends, [(CloseReason::Local, count)]);
    }
}
