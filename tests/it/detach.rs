//! V10: connections that leave a service with event loops, and connections that enter one.

use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::serve_events::{
    What, at, closes, echoes, listen, next as event, raw, reporting, some, until,
};
use crate::support::timing::ms;
use crate::support::*;
use crate::support::{process, watch};
use keepsock::{CloseReason, ErrorKind, Framing};

both_apis![
    detach_in_on_data_moves_the_connection_to_a_client,
    detach_moves_undelivered_messages_in_order,
    detach_of_a_paused_connection_moves_kept_messages,
    detach_outside_the_loop_of_the_connection_is_refused,
    detach_from_another_connection_or_a_posted_function_works,
    detach_with_queued_bytes_would_block_until_on_writable,
    detach_of_a_closing_or_failed_connection_is_refused,
    detach_keeps_a_half_closed_direction,
    detach_frees_the_place_and_the_address_of_the_connection,
    detach_during_a_drain_counts_as_neither_result,
    detach_of_connected_added_and_reconnected_connections_works,
    detach_keeps_the_limits_of_the_connection,
    detach_keeps_the_addresses_behind_a_proxy,
    detach_leaves_groups_and_runs_posted_functions,
    detached_client_that_is_freed_in_the_callback_closes_the_connection,
    add_delivers_buffered_bytes_first,
    add_delivers_buffered_messages_after_a_pause,
    add_returns_the_connection_before_on_open,
    add_of_a_connection_that_has_ended_is_refused,
    add_keeps_a_half_closed_direction,
    close_of_an_added_connection_that_sent_nothing_does_not_wait,
    connection_moves_between_services_under_load_without_loss,
];

const LIMIT: Duration = Duration::from_secs(60);

type Shared<T> = Arc<Mutex<Option<T>>>;

fn next<T>(told: &Receiver<T>) -> T {
    told.recv_timeout(LIMIT).unwrap()
}

fn teller<T: Send + 'static>() -> (impl Fn(T) + Clone + Send + Sync + 'static, Receiver<T>) {
    let (tell, told) = channel::<T>();
    let tell: Arc<Mutex<Sender<T>>> = Arc::new(Mutex::new(tell));
    (move |what| drop(tell.lock().unwrap().send(what)), told)
}

/// Callbacks that detach each connection at its first data, with the bytes after the first `used`.
#[allow(clippy::type_complexity)]
fn detaching<A: Api>(used: usize) -> (On<A>, Receiver<What>, Receiver<(A::Connection, A::Client)>) {
    let (mut on, told) = reporting::<A>();
    let (tell, detached) = teller();
    on.data = Some(Box::new(move |c: &A::Connection, data| {
        tell((c.clone(), c.detach(&data[used..]).unwrap()));
    }));
    (on, told, detached)
}

/// V10, V9, S1: the client has the five-tuple, the unread bytes and the rest of the connection.
/// on_close is the last callback, and the connection is refused afterwards.
fn detach_in_on_data_moves_the_connection_to_a_client<A: Api>() {
    let dir = TempDir::new();
    for (endpoint, loops) in [("127.0.0.1:0", 1), ("127.0.0.1:0", 3), (&*dir.endpoint("s"), 1)] {
        let server = A::listen(endpoint, &[]).unwrap();
        let (mut on, told, detached) = detaching::<A>(3);
        let (tell, at_close) = teller();
        let close = on.close.take().unwrap();
        on.close = Some(Box::new(move |c: &A::Connection, reason| {
            assert!(!c.is_open() && c.fd().is_err());
            fails(c.send(b"x"), ErrorKind::Closed);
            fails(c.detach(b""), ErrorKind::Closed);
            assert_eq!(c.stats().unwrap().close_reason, Some(CloseReason::Detached));
            tell(c.five_tuple().unwrap());
            close(c, reason);
        }));
        let service = server.serve_events(&[Serve::Threads(loops)], on).unwrap();
        let peer = A::connect(&server.endpoint(), &[]).unwrap();
        peer.write_all(b"GETrest").unwrap();
        let (conn, client) = next(&detached);
        let (id, reason) = match until(&told, closes) {
            What::Close(id, reason) => (id, reason),
            other => panic!("{other:?}"),
        };
        assert_eq!((id, reason), (conn.id(), CloseReason::Detached));
        assert_eq!((next(&at_close), client.close_reason()), (client.five_tuple(), None));
        assert_eq!(client.buffered(), 4);
        peer.write_all(b" of it\n").unwrap();
        assert_eq!(client.read_line(64).unwrap(), "rest of it");
        client.write_all(b"answer\n").unwrap();
        assert_eq!(peer.read_line(64).unwrap(), "answer");
        assert!(client.stats().is_ok());
        eventually("the connection is refused", || {
            conn.send(b"x").is_err() && conn.detach(b"").is_err() && conn.five_tuple().is_err()
        });
        eventually("the counts agree", || {
            let stats = service.stats();
            (stats.connections, stats.opened, stats.closed) == (0, 1, 1)
                && stats.ends == [(CloseReason::Detached, 1)]
        });
        client.set_read_timeout(20).unwrap();
        fails(client.read(&mut [0; 8]), ErrorKind::TimedOut);
        client.set_read_timeout(INFINITE).unwrap();
        // The service has ended, and the client continues.
        drop(service);
        client.shutdown_write().unwrap();
        assert_eq!(peer.read(&mut [0; 8]).unwrap(), 0);
        peer.close().unwrap();
        assert_eq!(client.read(&mut [0; 8]).unwrap(), 0);
        client.close().unwrap();
        assert!(told.try_recv().is_err(), "a callback after on_close");
    }
}

/// V10, V6: the messages after the present one, and the beginning of a message, move along. The
/// present message comes first if the program returns it.
fn detach_moves_undelivered_messages_in_order<A: Api>() {
    let server = listen::<A>(&[]);
    for returned in [&b""[..], b"first\n"] {
        let (mut on, _told) = reporting::<A>();
        let (tell, detached) = teller();
        on.data = Some(Box::new(move |c: &A::Connection, message| match message {
            b"zero" => {}
            b"first" => tell(c.detach(returned).unwrap()),
            other => panic!("{other:?} is delivered after the detach"),
        }));
        let other = listen::<A>(&[]);
        let framing = Serve::Framing(Framing::Lines { max: 100_000 });
        let _service = other.serve_events(&[framing], on).unwrap();
        let mut peer = raw(&at::<A>(&other));
        peer.write_all(b"zero\nfirst\nsecond\nthird\npart").unwrap();
        let client: A::Client = next(&detached);
        if !returned.is_empty() {
            assert_eq!(client.read_line(64).unwrap(), "first");
        }
        for line in ["second", "third"] {
            assert_eq!(client.read_line(64).unwrap(), line);
        }
        peer.write_all(b"ial\nlast\n").unwrap();
        for line in ["partial", "last"] {
            assert_eq!(client.read_line(64).unwrap(), line);
        }
    }
    // Another connection of the same loop is not current, and its bytes are its own.
    let (mut on, _told) = reporting::<A>();
    let (tell, detached) = teller();
    let victim: Shared<A::Connection> = Shared::default();
    let other = victim.clone();
    on.data = Some(Box::new(move |c: &A::Connection, message| match message {
        b"victim" => {
            *other.lock().unwrap() = Some(c.clone());
            c.send(b"kept").unwrap();
        }
        b"take" => tell(other.lock().unwrap().take().unwrap().detach(b"").unwrap()),
        message => assert_eq!(message, b"more"),
    }));
    let _service = server.serve_events(&[Serve::Framing(Framing::Lines { max: 100 })], on).unwrap();
    let (mut first, mut second) = (raw(&at::<A>(&server)), raw(&at::<A>(&server)));
    first.write_all(b"victim\nhalf").unwrap();
    assert_eq!(some(&first, 5), b"kept\n");
    second.write_all(b"take\nmore\n").unwrap();
    let client: A::Client = next(&detached);
    first.write_all(b" line\n").unwrap();
    assert_eq!(client.read_line(64).unwrap(), "half line");
}

/// V10, V8: complete messages that the program has not accepted yet move along.
fn detach_of_a_paused_connection_moves_kept_messages<A: Api>() {
    let server = listen::<A>(&[]);
    let (mut on, _told) = reporting::<A>();
    let (tell, paused) = teller();
    on.data = Some(Box::new(move |c: &A::Connection, message| {
        assert_eq!(message, b"one");
        c.pause();
        tell(c.clone());
    }));
    let _service = server.serve_events(&[Serve::Framing(Framing::Lines { max: 100 })], on).unwrap();
    let mut peer = raw(&at::<A>(&server));
    peer.write_all(b"one\ntwo\nthree\nfo").unwrap();
    let conn = next(&paused);
    let (tell, detached) = teller();
    conn.post(Box::new(move |c: &A::Connection| tell(c.detach(b"").unwrap()))).unwrap();
    let client: A::Client = next(&detached);
    peer.write_all(b"ur\n").unwrap();
    for line in ["two", "three", "four"] {
        assert_eq!(client.read_line(64).unwrap(), line);
    }
}

/// V10, E2: another thread, another loop and on_close cannot detach, and the connection continues.
fn detach_outside_the_loop_of_the_connection_is_refused<A: Api>() {
    let server = listen::<A>(&[]);
    let (mut on, told) = reporting::<A>();
    let (tell, opened) = teller();
    on.open = Some(Box::new(move |c: &A::Connection| tell(c.clone())));
    let service = server.serve_events(&[Serve::Threads(2)], on).unwrap();
    let mut peers = [raw(&at::<A>(&server)), raw(&at::<A>(&server))];
    let conns = [next(&opened), next(&opened)];
    let refused = |result: Outcome<A::Client>| {
        let failure = result.err().unwrap();
        assert!(failure.is(ErrorKind::WrongState), "{failure:?}");
        assert!(failure.message.contains("outside the event loop"), "{failure:?}");
    };
    refused(conns[0].detach(b""));
    // With two loops, each has one of the connections.
    let (tell, tried) = teller();
    let other = conns[1].clone();
    conns[0].post(Box::new(move |_: &A::Connection| tell(other.detach(b"")))).unwrap();
    refused(next(&tried));
    for peer in &mut peers {
        peer.write_all(b"still served").unwrap();
        until(&told, |what| matches!(what, What::Data(_, data) if data == b"still served"));
    }
    assert_eq!(service.connections(), 2);
}

/// V10: a callback of another connection of the loop, a posted function and a timer can detach.
fn detach_from_another_connection_or_a_posted_function_works<A: Api>() {
    let server = listen::<A>(&[]);
    let (mut on, told) = reporting::<A>();
    let (tell, opened) = teller();
    on.open = Some(Box::new(move |c: &A::Connection| tell(c.clone())));
    let (tell, detached) = teller::<A::Client>();
    let victim: Shared<A::Connection> = Shared::default();
    let (taken, tell_of_data) = (victim.clone(), tell.clone());
    on.data = Some(Box::new(move |_: &A::Connection, _| {
        tell_of_data(taken.lock().unwrap().take().unwrap().detach(b"").unwrap());
    }));
    let tell_of_timer = tell.clone();
    on.timer = Some(Box::new(move |c: &A::Connection| tell_of_timer(c.detach(b"").unwrap())));
    let service = server.serve_events(&[], on).unwrap();
    let connect = || (raw(&at::<A>(&server)), next(&opened));
    let works = |peer: &mut TcpStream| {
        let client = next(&detached);
        peer.write_all(b"hello\n").unwrap();
        assert_eq!(client.read_line(64).unwrap(), "hello");
        assert!(matches!(until(&told, closes), What::Close(_, CloseReason::Detached)));
    };
    let (mut peer, conn) = connect();
    let (mut actor, _) = connect();
    *victim.lock().unwrap() = Some(conn);
    actor.write_all(b"take the other one").unwrap();
    works(&mut peer);
    let (mut peer, conn) = connect();
    let of_post = tell.clone();
    conn.post(Box::new(move |c: &A::Connection| of_post(c.detach(b"").unwrap()))).unwrap();
    works(&mut peer);
    let (mut peer, conn) = connect();
    let of_service = tell.clone();
    service.post(Box::new(move || of_service(conn.detach(b"").unwrap()))).unwrap();
    works(&mut peer);
    let (mut peer, conn) = connect();
    conn.set_timer(1).unwrap();
    works(&mut peer);
    // A connection is counted until its on_close has returned.
    eventually("the actor is left", || service.connections() == 1);
}

/// V10, V3: queued bytes are not lost: the detach fails until the queue is empty.
fn detach_with_queued_bytes_would_block_until_on_writable<A: Api>() {
    const LEN: usize = 16 << 20;
    let server = listen::<A>(&[]);
    let (mut on, told) = reporting::<A>();
    let (tell, detached) = teller::<A::Client>();
    let (tell_failure, failed) = teller();
    on.data = Some(Box::new(move |c: &A::Connection, _| {
        c.send(&bytes(LEN)).unwrap();
        tell_failure(c.detach(b"").err().unwrap());
        assert!(c.is_open());
    }));
    on.writable = Some(Box::new(move |c: &A::Connection| tell(c.detach(b"").unwrap())));
    let service = server.serve_events(&[], on).unwrap();
    let mut peer = raw(&at::<A>(&server));
    peer.write_all(b"get").unwrap();
    // The peer reads nothing until then, so the kernel does not accept all bytes.
    let failure = next(&failed);
    assert!(failure.is(ErrorKind::WouldBlock), "{failure:?}");
    assert!(failure.message.contains("detach in on_writable"), "{failure:?}");
    assert!(some(&peer, LEN) == bytes(LEN));
    next(&detached).write_all(b"and more").unwrap();
    assert_eq!(some(&peer, 8), b"and more");
    until(&told, closes);
    let stats = service.stats();
    assert_eq!((stats.written, stats.sent, stats.dropped), (LEN as i64, LEN as i64, 0));
}

/// V10, E2: a connection that is closing, was reset or has failed does not leave as an open client.
fn detach_of_a_closing_or_failed_connection_is_refused<A: Api>() {
    let server = listen::<A>(&[]);
    let (mut on, told) = reporting::<A>();
    let (tell, failed) = teller();
    on.data = Some(Box::new(move |c: &A::Connection, data| {
        match data {
            b"close" => c.close(),
            b"abort" => c.abort(),
            other => panic!("{other:?}"),
        }
        tell(c.detach(b"").err().unwrap());
    }));
    let _service = server.serve_events(&[], on).unwrap();
    for what in ["close", "abort"] {
        let mut peer = raw(&at::<A>(&server));
        peer.write_all(what.as_bytes()).unwrap();
        let failure = next(&failed);
        assert!(failure.is(ErrorKind::Closed), "{failure:?}");
        assert!(matches!(until(&told, closes), What::Close(_, CloseReason::Local)));
    }
    // The kernel reports a reset once, to the loop.
    let server = listen::<A>(&[]);
    let (mut on, _told) = reporting::<A>();
    let (tell, opened) = teller();
    on.open = Some(Box::new(move |c: &A::Connection| {
        c.pause();
        tell(c.clone());
    }));
    let _service = server.serve_events(&[], on).unwrap();
    let peer = raw(&at::<A>(&server));
    let conn = next(&opened);
    socket2::SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
    drop(peer);
    eventually("the reset arrives", || conn.close_reason() == Some(CloseReason::PeerReset));
    let (tell, tried) = teller();
    conn.post(Box::new(move |c: &A::Connection| tell(c.detach(b"").err().unwrap()))).unwrap();
    let failure = next(&tried);
    assert!(failure.is(ErrorKind::Reset), "{failure:?}");
}

/// V10, I3: a FIN of either side is not lost: the client continues the half-closed connection.
fn detach_keeps_a_half_closed_direction<A: Api>() {
    // This side has shut down sending, and the loop has not sent the FIN yet, or has.
    for posts in [false, true] {
        let server = listen::<A>(&[]);
        let (mut on, _told) = reporting::<A>();
        let (tell, detached) = teller::<A::Client>();
        on.data = Some(Box::new(move |c: &A::Connection, _| {
            c.send(b"last").unwrap();
            c.shutdown_write();
            let tell = tell.clone();
            if posts {
                // The FIN follows this callback.
                let later = move |c: &A::Connection| {
                    let tell = tell.clone();
                    c.post(Box::new(move |c: &A::Connection| tell(c.detach(b"").unwrap())))
                        .unwrap();
                };
                c.post(Box::new(later)).unwrap();
            } else {
                tell(c.detach(b"").unwrap());
            }
        }));
        let _service = server.serve_events(&[], on).unwrap();
        let mut peer = raw(&at::<A>(&server));
        peer.write_all(b"go").unwrap();
        let client = next(&detached);
        let mut got = Vec::new();
        peer.read_to_end(&mut got).unwrap();
        assert_eq!(got, b"last");
        fails(client.write_all(b"x"), ErrorKind::WrongState);
        peer.write_all(b"still read\n").unwrap();
        assert_eq!(client.read_line(64).unwrap(), "still read");
        assert_eq!(client.close_reason(), None);
        peer.shutdown(Shutdown::Write).unwrap();
        assert_eq!(client.read(&mut [0; 8]).unwrap(), 0);
    }
    // The peer has shut down its side.
    let server = listen::<A>(&[]);
    let (mut on, told) = reporting::<A>();
    let (tell, detached) = teller::<A::Client>();
    on.finished = Some(Box::new(move |c: &A::Connection| tell(c.detach(b"").unwrap())));
    let _service = server.serve_events(&[], on).unwrap();
    let mut peer = raw(&at::<A>(&server));
    peer.write_all(b"request").unwrap();
    peer.shutdown(Shutdown::Write).unwrap();
    let client = next(&detached);
    assert!(matches!(until(&told, closes), What::Close(_, CloseReason::Detached)));
    assert_eq!(client.close_reason(), None);
    assert_eq!(client.read(&mut [0; 8]).unwrap(), 0);
    assert_eq!(client.close_reason(), Some(CloseReason::PeerClosed));
    client.write_all(b"reply").unwrap();
    client.close().unwrap();
    let mut got = Vec::new();
    peer.read_to_end(&mut got).unwrap();
    assert_eq!(got, b"reply");
}

/// V10, V4: a detached connection counts neither for the total nor for its address.
fn detach_frees_the_place_and_the_address_of_the_connection<A: Api>() {
    for limit in [Serve::Max(1), Serve::PerAddress(1)] {
        let server = listen::<A>(&[]);
        let (on, told, detached) = detaching::<A>(0);
        let service = server.serve_events(&[limit], on).unwrap();
        let mut kept = Vec::new();
        for _ in 0..5 {
            let mut peer = raw(&at::<A>(&server));
            peer.write_all(b"hello\n").unwrap();
            let (_, client) = next(&detached);
            until(&told, closes);
            eventually("the place is free", || service.connections() == 0);
            kept.push((peer, client));
        }
        for (_, client) in &kept {
            assert_eq!(client.read_line(64).unwrap(), "hello");
        }
        assert_eq!(service.stats().ends, [(CloseReason::Detached, 5)]);
    }
}

/// V10, V5: a drain waits for on_close of a detached connection. It is neither completed nor reset.
fn detach_during_a_drain_counts_as_neither_result<A: Api>() {
    let server = listen::<A>(&[]);
    let (mut on, told) = reporting::<A>();
    let (tell, detached) = teller::<A::Client>();
    let first = AtomicUsize::new(0);
    on.drain =
        Some(Box::new(move |c: &A::Connection| match first.fetch_add(1, Ordering::SeqCst) {
            0 => tell(c.detach(b"").unwrap()),
            1 => c.close(),
            _ => {}
        }));
    let service = server.serve_events(&[], on).unwrap();
    let peers: Vec<_> = (0..3).map(|_| raw(&at::<A>(&server))).collect();
    eventually("all are open", || service.connections() == 3);
    // The third one is reset at the deadline.
    let result = service.drain(300).unwrap();
    let client = next(&detached);
    assert_eq!(result, (1, 1));
    assert_eq!(service.drain(0).unwrap(), (1, 1));
    let mut ends = service.stats().ends;
    ends.sort_by_key(|(reason, _)| *reason as i32);
    assert_eq!(ends, [(CloseReason::Local, 2), (CloseReason::Detached, 1)]);
    drop(service);
    drop(told);
    client.write_all(b"alive").unwrap();
    let is_alive = |mut peer: &TcpStream| peer.read(&mut [0; 8]).is_ok_and(|n| n == 5);
    assert_eq!(peers.iter().filter(|peer| is_alive(peer)).count(), 1);
}

/// V10, K8: connections that the service connected or that were added leave in the same way. A client
/// that connects again does not after a detach.
fn detach_of_connected_added_and_reconnected_connections_works<A: Api>() {
    let upstream = listen::<A>(&[]);
    let to = upstream.endpoint();
    let server = listen::<A>(&[]);
    let (mut on, told) = reporting::<A>();
    let (tell, detached) = teller::<A::Client>();
    on.open = Some(Box::new(move |c: &A::Connection| tell(c.detach(b"").unwrap())));
    let service = server.serve_events(&[], on).unwrap();
    let reconnect = A::reconnect(&to, &[]).unwrap();
    let mut reconnect = Some(reconnect);
    for way in 0..3 {
        match way {
            0 => service.connect(&to, &[], 1).unwrap(),
            1 => drop(service.add(A::connect(&to, &[]).unwrap(), 1).map_err(|(_, e)| e).unwrap()),
            _ => service.reconnect(reconnect.take().unwrap(), 1).map_err(|(_, e)| e).unwrap(),
        }
        let accepted = upstream.accept().unwrap();
        let client = next(&detached);
        assert!(matches!(until(&told, closes), What::Close(_, CloseReason::Detached)));
        accepted.write_all(b"hello\n").unwrap();
        assert_eq!(client.read_line(64).unwrap(), "hello");
        // Another service, or the same one, may have it next.
        let echo = listen::<A>(&[]);
        let other = echo.serve_events(&[], echoes::<A>()).unwrap();
        assert!(other.add(client, 1).is_ok());
        accepted.write_all(b"echo\n").unwrap();
        assert_eq!(accepted.read_line(64).unwrap(), "echo");
    }
    // The service has ended with all its tasks, so nothing connects again.
    assert_eq!(service.stop_and_wait(60_000).unwrap(), 0);
    assert!(told.try_recv().is_err());
}

/// V10, K8, K3, K5, K6: the client keeps dead_after, the heartbeat, the idle timeout and the close
/// timeout of the connection, also after a change, and the keepalive of the kernel.
fn detach_keeps_the_limits_of_the_connection<A: Api>() {
    let server = listen::<A>(&[
        Opt::Keepalive(9000, 3000, 4),
        Opt::Heartbeat(b"beat\n", 50),
        Opt::IdleTimeout(60_000),
        Opt::FirstByteTimeout(300),
    ]);
    let (mut on, _told) = reporting::<A>();
    let (tell, detached) = teller::<A::Client>();
    on.data = Some(Box::new(move |c: &A::Connection, _| {
        c.set_idle_timeout(700).unwrap();
        tell(c.detach(b"").unwrap());
    }));
    let _service = server.serve_events(&[], on).unwrap();
    let peer = A::connect(&server.endpoint(), &[]).unwrap();
    peer.write_all(b"x").unwrap();
    let client = next(&detached);
    assert_eq!(client.keepalive().unwrap(), Some((9000, 3000, 4)));
    // The first byte has arrived, so the idle timeout ends the read.
    let (failure, took) = timed(|| client.read(&mut [0; 8]).err().unwrap());
    assert!(failure.is(ErrorKind::IdleTimeout), "{failure:?}");
    assert!(took >= ms(650), "{took:?}");
    assert_eq!(peer.read_line(64).unwrap(), "beat");
    assert_eq!(client.close_reason(), Some(CloseReason::IdleTimeout));
    // The own limits of an added connection come back with it.
    let (ours, _peer) = with_raw_peer::<A>(&[Opt::DeadAfter(60_000), Opt::IdleTimeout(600)]);
    let plain = listen::<A>(&[]);
    let (mut on, _told) = reporting::<A>();
    let (tell, detached) = teller::<A::Client>();
    on.open = Some(Box::new(move |c: &A::Connection| tell(c.detach(b"").unwrap())));
    let service = plain.serve_events(&[], on).unwrap();
    assert!(service.add(ours, 1).is_ok());
    let client = next(&detached);
    let failure = client.read(&mut [0; 8]).err().unwrap();
    assert!(failure.is(ErrorKind::IdleTimeout), "{failure:?}");
}

/// V10, S1: the five-tuple is that of the client behind the proxy, before and after.
fn detach_keeps_the_addresses_behind_a_proxy<A: Api>() {
    let server = listen::<A>(&[Opt::TrustedProxy("127.0.0.0/8")]);
    let (on, told, detached) = detaching::<A>(0);
    let _service = server.serve_events(&[], on).unwrap();
    let mut peer = raw(&at::<A>(&server));
    peer.write_all(b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\nhello\n").unwrap();
    let (_, client) = next(&detached);
    until(&told, closes);
    let tuple = client.five_tuple();
    assert_eq!((&*tuple.remote.0, tuple.remote.1), ("192.0.2.1", 56324));
    assert_eq!((&*tuple.local.0, tuple.local.1), ("198.51.100.1", 443));
    let proxy = peer.local_addr().unwrap().to_string();
    assert_eq!(client.proxy_address(), Some(proxy.clone()));
    assert_eq!(client.read_line(64).unwrap(), "hello");
    // The next service has the same addresses.
    let other = listen::<A>(&[]);
    let (on, told, detached) = detaching::<A>(0);
    let service = other.serve_events(&[], on).unwrap();
    let conn = service.add(client, 1).map_err(|(_, e)| e).unwrap();
    assert_eq!(conn.five_tuple().unwrap(), tuple);
    peer.write_all(b"again").unwrap();
    let (_, client) = next(&detached);
    until(&told, closes);
    assert_eq!((client.five_tuple(), client.proxy_address()), (tuple, Some(proxy)));
}

/// V10, V3: the connection leaves its groups, and the functions that were posted to it are called
/// before on_close.
fn detach_leaves_groups_and_runs_posted_functions<A: Api>() {
    let server = listen::<A>(&[]);
    let (mut on, told) = reporting::<A>();
    let (tell, order) = teller();
    let (tell_client, detached) = teller::<A::Client>();
    let tell_close = tell.clone();
    let close = on.close.take().unwrap();
    on.close = Some(Box::new(move |c: &A::Connection, reason| {
        tell_close("close");
        close(c, reason);
    }));
    on.data = Some(Box::new(move |c: &A::Connection, _| {
        c.join("group").unwrap();
        let tell = tell.clone();
        let posted = move |c: &A::Connection| {
            fails(c.send(b"lost"), ErrorKind::Closed);
            fails(c.detach(b""), ErrorKind::Closed);
            tell("posted");
        };
        c.post(Box::new(posted)).unwrap();
        tell_client(c.detach(b"").unwrap());
    }));
    let service = server.serve_events(&[], on).unwrap();
    let mut peer = raw(&at::<A>(&server));
    peer.write_all(b"go").unwrap();
    let client = next(&detached);
    assert_eq!((next(&order), next(&order)), ("posted", "close"));
    until(&told, closes);
    for group in [None, Some("group")] {
        assert_eq!(service.push(group, b"push").unwrap().sent, 0);
    }
    client.write_all(b"only this").unwrap();
    client.shutdown_write().unwrap();
    let mut got = Vec::new();
    peer.read_to_end(&mut got).unwrap();
    assert_eq!(got, b"only this");
}

/// V10, I3: a client that the callback frees is closed as every client, and no descriptor is left.
fn detached_client_that_is_freed_in_the_callback_closes_the_connection<A: Api>() {
    let test = "detached_client_that_is_freed_in_the_callback_closes_the_connection";
    process::in_process(&test_name!(A, test), LIMIT, || {
        let server = listen::<A>(&[]);
        let (mut on, told) = reporting::<A>();
        on.data = Some(Box::new(move |c: &A::Connection, _| {
            c.send(b"bye").unwrap();
            drop(c.detach(b"").unwrap());
        }));
        let _service = server.serve_events(&[], on).unwrap();
        let mut before = 0;
        for round in 0..20 {
            let mut peer = raw(&at::<A>(&server));
            peer.write_all(b"go").unwrap();
            let mut got = Vec::new();
            peer.read_to_end(&mut got).unwrap();
            assert_eq!(got, b"bye");
            until(&told, closes);
            drop(peer);
            if round == 4 {
                watch::await_that("the closer has ended", || {
                    watch::count_threads("keepsock-close") == 0
                });
                before = watch::count_descriptors();
            }
        }
        watch::await_that("no descriptor is left", || watch::count_descriptors() <= before);
    });
}

/// V10, I1: a program accepts in its own loop, reads the first line, and passes the connection to a
/// service, which delivers the rest first.
fn add_delivers_buffered_bytes_first<A: Api>() {
    let dir = TempDir::new();
    for endpoint in ["127.0.0.1:0", &dir.endpoint("s")] {
        let own = A::listen(endpoint, &[]).unwrap();
        for loops in [1, 3] {
            let other = listen::<A>(&[]);
            let (on, told) = reporting::<A>();
            let service = other.serve_events(&[Serve::Threads(loops)], on).unwrap();
            let peer = A::connect(&own.endpoint(), &[]).unwrap();
            peer.write_all(b"HELLO 1\nrest").unwrap();
            let client = own.accept().unwrap();
            assert_eq!(client.read_line(64).unwrap(), "HELLO 1");
            assert_eq!(client.buffered(), 4);
            let conn = service.add(client, 1).map_err(|(_, e)| e).unwrap();
            let id = conn.id();
            assert_eq!(event(&told), What::Open(id));
            assert_eq!(event(&told), What::Data(id, b"rest".to_vec()));
            peer.write_all(b"later").unwrap();
            assert_eq!(event(&told), What::Data(id, b"later".to_vec()));
            conn.send(b"answer\n").unwrap();
            assert_eq!(peer.read_line(64).unwrap(), "answer");
            assert_eq!(service.stats().received, 5);
            // The end of the stream follows the buffered bytes.
            let peer = A::connect(&own.endpoint(), &[]).unwrap();
            peer.write_all(b"HELLO 2\nall").unwrap();
            peer.shutdown_write().unwrap();
            let client = own.accept().unwrap();
            assert_eq!(client.read_line(64).unwrap(), "HELLO 2");
            let id = service.add(client, 1).map_err(|(_, e)| e).unwrap().id();
            for expected in [
                What::Open(id),
                What::Data(id, b"all".to_vec()),
                What::Finished(id),
                What::Close(id, CloseReason::PeerClosed),
            ] {
                assert_eq!(event(&told), expected);
            }
        }
    }
}

/// V10, V6, V8: buffered messages are delivered one by one, also after a pause in on_open, with the
/// rest of a message that arrives later.
fn add_delivers_buffered_messages_after_a_pause<A: Api>() {
    for pauses in [false, true] {
        let (own, server) = (listen::<A>(&[]), listen::<A>(&[]));
        let (mut on, told) = reporting::<A>();
        let (tell, opened) = teller();
        on.open = Some(Box::new(move |c: &A::Connection| {
            if pauses {
                c.pause();
            }
            tell(c.clone());
        }));
        let framing = Serve::Framing(Framing::Lines { max: 100 });
        let service = server.serve_events(&[framing], on).unwrap();
        let mut peer = raw(&at::<A>(&own));
        peer.write_all(b"HELLO\none\ntwo\nth").unwrap();
        let client = own.accept().unwrap();
        assert_eq!(client.read_line(64).unwrap(), "HELLO");
        assert!(service.add(client, 1).is_ok());
        let conn = next(&opened);
        if pauses {
            let (tell, ran) = teller();
            conn.post(Box::new(move |_: &A::Connection| tell(()))).unwrap();
            next(&ran);
            assert!(told.try_recv().is_err(), "a message is delivered during the pause");
            conn.resume();
        }
        peer.write_all(b"ree\n").unwrap();
        for line in ["one", "two", "three"] {
            let What::Data(_, data) = event(&told) else { panic!("no data") };
            assert_eq!(data, line.as_bytes());
        }
    }
}

/// V10, V9: the connection that add returns is the one of the callbacks, and can be used before
/// on_open.
fn add_returns_the_connection_before_on_open<A: Api>() {
    let server = listen::<A>(&[]);
    let (on, told) = reporting::<A>();
    let service = Arc::new(server.serve_events(&[], on).unwrap());
    let (client, peer) = with_raw_peer::<A>(&[]);
    let (tell, added) = teller();
    let in_loop = service.clone();
    let add = move || {
        // on_open follows after this function.
        let conn = in_loop.add(client, 4711).map_err(|(_, e)| e).unwrap();
        assert_eq!(conn.data(), 4711);
        let failure = conn.detach(b"").err().unwrap();
        assert!(failure.is(ErrorKind::WrongState), "{failure:?}");
        assert!(failure.message.contains("on_open has not been called"), "{failure:?}");
        conn.send(b"early").unwrap();
        tell(conn.id());
    };
    service.post(Box::new(add)).unwrap();
    let id = next(&added);
    assert_eq!(event(&told), What::Open(id));
    assert_eq!(some(&peer, 5), b"early");
    drop(peer);
    assert!(matches!(until(&told, closes), What::Close(closed, _) if closed == id));
}

/// I3: no byte can be lost, so the close does not wait for the FIN of the peer. A connection that has
/// sent bytes waits.
fn close_of_an_added_connection_that_sent_nothing_does_not_wait<A: Api>() {
    for sent in [false, true] {
        let server = listen::<A>(&[]);
        let (on, told) = reporting::<A>();
        let service = server.serve_events(&[], on).unwrap();
        let (client, peer) = with_raw_peer::<A>(&[Opt::CloseTimeout(300_000)]);
        if sent {
            client.write_all(b"hello").unwrap();
        }
        let conn = service.add(client, 0).map_err(|(_, e)| e).unwrap();
        assert!(matches!(event(&told), What::Open(_)));
        conn.close();
        if sent {
            assert_eq!(some(&peer, 5), b"hello");
            // The connection stays until the peer has read the FIN and closes.
            assert_eq!((&peer).read(&mut [0]).unwrap(), 0);
            assert_eq!(service.stats().closed, 0);
            drop(peer);
        }
        assert!(matches!(until(&told, closes), What::Close(_, CloseReason::Local)));
    }
}

/// I4, E2: a reset that a call has found is not an end of stream of the service.
fn add_of_a_connection_that_has_ended_is_refused<A: Api>() {
    let server = listen::<A>(&[]);
    let (on, told) = reporting::<A>();
    let service = server.serve_events(&[], on).unwrap();
    let (client, peer) = with_raw_peer::<A>(&[]);
    socket2::SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
    drop(peer);
    fails(client.read(&mut [0; 8]), ErrorKind::Reset);
    let (client, failure) = service.add(client, 1).err().unwrap();
    assert!(failure.is(ErrorKind::Reset), "{failure:?}");
    assert_eq!(client.close_reason(), Some(CloseReason::PeerReset));
    let (client, _peer) = with_raw_peer::<A>(&[Opt::IdleTimeout(50)]);
    fails(client.read(&mut [0; 8]), ErrorKind::IdleTimeout);
    let (_client, failure) = service.add(client, 1).err().unwrap();
    assert!(failure.is(ErrorKind::IdleTimeout), "{failure:?}");
    assert_eq!(service.connections(), 0);
    assert!(told.try_recv().is_err());
}

/// I3: a client that has shut down sending is half-closed in the service as well.
fn add_keeps_a_half_closed_direction<A: Api>() {
    let server = listen::<A>(&[]);
    let (on, told) = reporting::<A>();
    let service = server.serve_events(&[], on).unwrap();
    let (client, mut peer) = with_raw_peer::<A>(&[]);
    client.shutdown_write().unwrap();
    let conn = service.add(client, 1).map_err(|(_, e)| e).unwrap();
    fails(conn.send(b"x"), ErrorKind::Closed);
    peer.write_all(b"data").unwrap();
    until(&told, |what| matches!(what, What::Data(_, data) if data == b"data"));
    peer.shutdown(Shutdown::Write).unwrap();
    until(&told, |what| matches!(what, What::Finished(_)));
    assert!(matches!(until(&told, closes), What::Close(_, CloseReason::PeerClosed)));
}

/// V10, V9, V6: connections move between two services and a thread of the program while their peers
/// send without a pause. No byte is lost, none is delivered twice, and no descriptor is left.
fn connection_moves_between_services_under_load_without_loss<A: Api>() {
    // The last line is not a move, so a line follows each move.
    const LINES: usize = 3001;
    const PEERS: usize = 4;
    for loops in [1, 3] {
        let servers = [listen::<A>(&[]), listen::<A>(&[])];
        // Each line is received by a service or by the program; each seventh one is a move.
        let (tell_line, lines) = teller::<(usize, usize)>();
        let (tell, detached) = teller::<(A::Client, usize)>();
        let framing = Serve::Framing(Framing::Lines { max: 100 });
        let parse = |line: &[u8]| {
            let text = std::str::from_utf8(line).unwrap();
            let (peer, line) = text.split_once(' ').unwrap();
            (peer.parse::<usize>().unwrap(), line.parse::<usize>().unwrap())
        };
        let services = [0, 1].map(|number| {
            let (tell_line, tell) = (tell_line.clone(), tell.clone());
            let on = On {
                data: Some(Box::new(move |c: &A::Connection, line| {
                    let (peer, line) = parse(line);
                    tell_line((peer, line));
                    if line % 7 == 3 {
                        tell((c.detach(b"").unwrap(), 1 - number));
                    }
                })),
                ..On::default()
            };
            servers[number].serve_events(&[framing, Serve::Threads(loops)], on).unwrap()
        });
        let senders: Vec<_> = (0..PEERS)
            .map(|number| {
                let mut peer = raw(&at::<A>(&servers[0]));
                thread::spawn(move || {
                    for line in 0..LINES {
                        peer.write_all(format!("{number} {line}\n").as_bytes()).unwrap();
                    }
                    peer
                })
            })
            .collect();
        let mut expected = [0; PEERS];
        let left = Cell::new(PEERS * LINES);
        let mut count = |(peer, line): (usize, usize)| {
            assert_eq!(line, expected[peer], "of peer {peer}");
            expected[peer] += 1;
            left.set(left.get() - 1);
        };
        let mut moves = 0;
        while left.get() > 0 {
            while let Ok((client, to)) = detached.try_recv() {
                moves += 1;
                // The lines before the move were reported before it.
                lines.try_iter().for_each(&mut count);
                if moves % 2 == 0 {
                    // The program reads a line itself.
                    match client.read_line(100) {
                        Ok(line) => count(parse(line.as_bytes())),
                        Err(failure) => assert!(failure.is(ErrorKind::EndOfStream), "{failure:?}"),
                    }
                }
                assert!(services[to].add(client, 1).is_ok());
            }
            lines.recv_timeout(ms(1)).into_iter().for_each(&mut count);
        }
        assert!(moves > PEERS * LINES / 8, "{moves}");
        for sender in senders {
            drop(sender.join().unwrap());
        }
        for service in &services {
            eventually("all connections have ended", || service.connections() == 0);
            let stats = service.stats();
            assert_eq!(stats.opened, stats.ends.iter().map(|(_, n)| n).sum::<u64>());
        }
    }
}
