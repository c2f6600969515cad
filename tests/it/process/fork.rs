//! I3, E5: processes that share sockets after a fork.

use std::io::{ErrorKind as IoKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::event_loop::Waits;
#[cfg(feature = "activation")]
use crate::handover::{succeeded, successor};
#[cfg(feature = "diag")]
use crate::handshake::capture;
use crate::support;
#[cfg(all(feature = "datagram", feature = "serve"))]
use crate::support::DatagramService;
#[cfg(feature = "datagram")]
use crate::support::Datagrams;
#[cfg(feature = "diag")]
use crate::support::handshake::Handshakes;
#[cfg(feature = "activation")]
use crate::support::process::{self, Helper, report};
#[cfg(feature = "activation")]
use crate::support::{Activation, Handed};
use crate::support::{
    Api, Client, FullQueue, INFINITE, Opt, PendingConnect, Reconnect, Server, TRANSPORTS, Token,
    Transport, eventually, fails, pair_with, somewhere, system, watch, while_waiting,
    with_raw_peer,
};
#[cfg(feature = "serve")]
use crate::support::{Connection, On, Service};
use keepsock::{CloseReason, ErrorKind};
use system::Forked;

both_apis_alone![
    close_with_forked_child_reaches_the_peer,
    free_with_forked_child_reaches_the_peer,
    abort_with_forked_child_reaches_the_peer,
    closed_listener_with_forked_child_refuses_clients,
    client_freed_in_a_forked_child_stays_open_in_the_parent,
    seqpacket_client_freed_in_a_forked_child_stays_open_in_the_parent,
    accept_in_a_forked_child_ends_when_the_child_closes,
    read_in_a_forked_child_does_not_wait_for_the_parents_threads,
    reset_met_by_a_forked_child_is_a_reset_in_the_parent,
    background_closer_starts_again_in_a_forked_child,
    fork_while_the_closer_reads_leaves_no_copy,
    fork_while_the_closer_logs_leaves_no_copy,
    close_between_fork_and_return_reaches_the_peer,
    free_in_a_fork_handler_returns,
    release_in_a_forked_child_disregards_the_parents_calls,
    write_in_a_forked_child_does_not_wait_for_the_parents_writer,
    client_freed_in_a_cloned_child_stays_open_in_the_parent,
    token_fired_in_a_forked_child_is_not_fired_in_the_parent,
    pending_connect_dropped_with_forked_child_ends_its_connection,
    pending_connect_cancelled_with_forked_child_ends_its_attempt,
    pending_connect_freed_in_a_forked_child_finishes_in_the_parent,
    attempt_that_failed_with_a_forked_copy_reports_once,
    reconnect_freed_in_a_forked_child_connects_in_the_parent,
    #[cfg(feature = "serve")] {
        event_service_with_forked_child_ends_connections,
        thread_service_with_forked_child_ends_connections,
        event_service_freed_in_a_forked_child_serves_in_the_parent,
        thread_service_freed_in_a_forked_child_serves_in_the_parent,
        service_connect_with_a_forked_child_that_frees_finishes,
        connection_in_a_reused_entry_opens_before_data,
        closed_connection_with_forked_child_leaves_the_poller,
        service_freed_in_a_child_forked_during_an_accept_closes_no_other_file,
        service_freed_in_a_child_forked_during_a_send_closes_no_other_file,
        connection_in_a_forked_child_does_not_wait_for_the_loop,
        callback_that_returns_in_a_forked_child_ends_the_child,
    }
    #[cfg(feature = "activation")] {
        accept_in_a_forked_child_sleeps_after_the_parent_has_closed,
        server_freed_in_a_forked_child_listens_in_the_parent,
        activation_freed_in_a_forked_child_adopts_in_the_parent,
        handover_with_a_forked_child_that_frees_completes,
    }
    #[cfg(feature = "diag")] {
        capture_freed_in_a_forked_child_captures_in_the_parent,
    }
    #[cfg(all(feature = "datagram", feature = "serve"))] {
        datagram_freed_in_a_forked_child_receives_in_the_parent,
        datagram_closed_with_forked_child_ends_waiting_calls,
        unix_datagram_freed_in_a_forked_child_receives_in_the_parent,
        wait_for_a_service_in_a_forked_child_fails,
        datagram_handler_that_returns_in_a_forked_child_ends_the_child,
        connection_in_a_forked_child_does_not_change,
    }
];

/// The time that a child with copies must not add.
const AT_ONCE: Duration = Duration::from_secs(60);

/// Reads to the end of the stream within a time limit. No child ends the stream.
fn end_of(mut peer: impl Read) -> Result<Vec<u8>, IoKind> {
    let mut all = Vec::new();
    peer.read_to_end(&mut all).map(|_| all).map_err(|e| e.kind())
}

fn raw_to(endpoint: &str) -> TcpStream {
    let peer = TcpStream::connect(endpoint).unwrap();
    peer.set_read_timeout(Some(AT_ONCE)).unwrap();
    peer
}

#[cfg(feature = "serve")]
fn hello<A: Api>() -> On<A> {
    On { data: Some(Box::new(|c: &A::Connection, data| drop(c.send(data)))), ..On::default() }
}

fn echo(peer: &mut (impl Read + Write)) {
    peer.write_all(b"ping").unwrap();
    let mut buf = [0; 4];
    peer.read_exact(&mut buf).unwrap();
    assert_eq!(&buf, b"ping");
}

/// I3: a close reaches the peer at once, with and without written data, although a forked child has
/// the socket.
fn close_with_forked_child_reaches_the_peer<A: Api>() {
    for transport in TRANSPORTS {
        for bytes in [&b""[..], b"reply"] {
            let p = pair_with::<A>(transport, &[Opt::CloseTimeout(0)]);
            p.client.set_read_timeout(60_000).unwrap();
            // A write of no bytes counts as a write, after which a close sends FIN in its own way.
            if !bytes.is_empty() {
                p.accepted.write_all(bytes).unwrap();
            }
            let _child = Forked::new(|| {});
            p.accepted.close().unwrap();
            let mut buf = [0; 8];
            assert_eq!(p.client.read(&mut buf).unwrap(), bytes.len());
            assert_eq!(p.client.read(&mut buf).unwrap(), 0);
        }
    }
}

/// I3: a free reaches the peer, also if the background closer completes it.
fn free_with_forked_child_reaches_the_peer<A: Api>() {
    let (client, mut peer) = with_raw_peer::<A>(&[Opt::CloseTimeout(100)]);
    peer.set_read_timeout(Some(AT_ONCE)).unwrap();
    client.write_all(b"reply").unwrap();
    let _child = Forked::new(|| {});
    drop(client);
    assert_eq!(end_of(&peer), Ok(b"reply".to_vec()));
    // After the close timeout the connection is closed, and the kernel rejects further data.
    eventually("the connection is closed", || (&peer).write_all(b"x").is_err());
    assert!(peer.write_all(b"x").is_err());
}

/// I3: an abort sends RST, which the peer cannot treat as an end of stream.
fn abort_with_forked_child_reaches_the_peer<A: Api>() {
    for waits in [false, true] {
        let (client, peer) = with_raw_peer::<A>(&[]);
        peer.set_read_timeout(Some(AT_ONCE)).unwrap();
        client.write_all(b"lost").unwrap();
        let _child = Forked::new(|| {});
        if waits {
            let (outcome, _) = while_waiting(|| client.read(&mut [0; 8]), || client.abort());
            fails(outcome, ErrorKind::Closed);
        } else {
            client.abort();
        }
        assert_eq!(end_of(&peer), Err(IoKind::ConnectionReset));
    }
}

/// I3, V5: connections of an event-driven service end, closed and aborted by the program, and by
/// the end of the service.
#[cfg(feature = "serve")]
fn event_service_with_forked_child_ends_connections<A: Api>() {
    type End<A> = fn(&<A as Api>::Connection);
    let ends: [(End<A>, bool); 2] = [(|c| c.close(), false), (|c| c.abort(), true)];
    for (end, resets) in ends {
        let server = A::listen("127.0.0.1:0", &[]).unwrap();
        let (send, opened) = std::sync::mpsc::channel();
        let send = std::sync::Mutex::new(send);
        let open = move |c: &A::Connection| drop(send.lock().unwrap().send(c.clone()));
        let on = On { open: Some(Box::new(open)), ..hello::<A>() };
        let service = server.serve_events(&[], on).unwrap();
        let peer = raw_to(&server.endpoint());
        let connection = opened.recv_timeout(AT_ONCE).unwrap();
        let _child = Forked::new(|| {});
        end(&connection);
        let expected = if resets { Err(IoKind::ConnectionReset) } else { Ok(Vec::new()) };
        assert_eq!(end_of(&peer), expected);
        drop(service);
    }
    for frees in [false, true] {
        let server = A::listen("127.0.0.1:0", &[]).unwrap();
        let service = server.serve_events(&[], hello::<A>()).unwrap();
        let mut peer = raw_to(&server.endpoint());
        echo(&mut peer);
        let _child = Forked::new(|| {});
        if frees {
            drop(service)
        } else {
            drop(service.drain(0))
        }
        end_of(&peer).unwrap_or_default();
        assert_ne!(end_of(&peer), Err(IoKind::WouldBlock), "frees: {frees}");
    }
}

/// I3, V5: connections of a service with a thread per connection end.
#[cfg(feature = "serve")]
fn thread_service_with_forked_child_ends_connections<A: Api>() {
    for frees in [false, true] {
        let server = A::listen("127.0.0.1:0", &[]).unwrap();
        let handler = |c: &A::Client| drop(c.read(&mut [0; 8]));
        let service = server.serve(&[], Box::new(handler)).unwrap();
        let peer = raw_to(&server.endpoint());
        eventually("the connection is served", || service.connections() == 1);
        let _child = Forked::new(|| {});
        if frees {
            drop(service)
        } else {
            drop(service.drain(0))
        }
        assert_ne!(end_of(&peer), Err(IoKind::WouldBlock), "frees: {frees}");
    }
}

/// L5: no client connects to a closed server whose child is alive.
fn closed_listener_with_forked_child_refuses_clients<A: Api>() {
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    let endpoint = server.endpoint();
    let _child = Forked::new(|| {});
    server.close();
    fails(A::connect(&endpoint, &[]), ErrorKind::Refused);
}

/// E5: a client that a forked child frees, closes or aborts stays open in the parent.
fn client_freed_in_a_forked_child_stays_open_in_the_parent<A: Api>() {
    type End<A> = fn(&<A as Api>::Client);
    let ends: [End<A>; 3] = [|c| system::drop_copy(c), |c| c.close().unwrap(), |c| c.abort()];
    for transport in TRANSPORTS {
        for end in ends {
            let p = pair_with::<A>(transport, &[Opt::CloseTimeout(20_000)]);
            p.client.write_all(b"before\n").unwrap();
            assert!(Forked::run(|| {
                let before = system::open_sockets();
                end(&p.client);
                assert_eq!(system::open_sockets(), before - 1);
            }));
            p.client.write_all(b"after\n").unwrap();
            assert_eq!(p.accepted.read_line(64).unwrap(), "before");
            assert_eq!(p.accepted.read_line(64).unwrap(), "after");
            p.accepted.write_all(b"reply\n").unwrap();
            assert_eq!(p.client.read_line(64).unwrap(), "reply");
            p.accepted.abort();
        }
    }
}

/// E5, L5: the parent also owns the file of a Unix socket.
#[cfg(feature = "activation")]
fn server_freed_in_a_forked_child_listens_in_the_parent<A: Api>() {
    type End<A> = fn(&<A as Api>::Server);
    let ends: [End<A>; 2] = [|s| system::drop_copy(s), |s| s.close()];
    for options in [&[][..], &[Opt::Handover(true)]] {
        for transport in TRANSPORTS {
            for end in ends {
                let (endpoint, _dir) = somewhere(transport);
                let server = A::listen(&endpoint, options).unwrap();
                assert!(Forked::run(|| end(&server)));
                server.set_accept_timeout(60_000).unwrap();
                let client = A::connect(&server.endpoint(), &[]).unwrap();
                server.accept().unwrap().abort();
                client.abort();
                if transport == Transport::Unix {
                    assert!(Path::new(endpoint.trim_start_matches("unix:")).exists());
                }
            }
        }
    }
}

/// E5, D4: as for a stream. The messages keep their boundaries.
fn seqpacket_client_freed_in_a_forked_child_stays_open_in_the_parent<A: Api>() {
    type End<A> = fn(&<A as Api>::Client);
    let ends: [End<A>; 3] = [|c| system::drop_copy(c), |c| c.close().unwrap(), |c| c.abort()];
    let options = [Opt::Seqpacket(true), Opt::CloseTimeout(0), Opt::ReadTimeout(60_000)];
    let (endpoint, _dir) = somewhere(Transport::Unix);
    let server = A::listen(&endpoint, &options).unwrap();
    for end in ends {
        let client = A::connect(&endpoint, &options).unwrap();
        let accepted = server.accept().unwrap();
        client.write_all(b"before").unwrap();
        assert!(Forked::run(|| end(&client)));
        client.write_all(b"after").unwrap();
        let mut buf = [0; 64];
        for message in ["before", "after"] {
            let len = accepted.read(&mut buf).unwrap();
            assert_eq!(&buf[..len], message.as_bytes());
        }
        accepted.write_all(b"reply").unwrap();
        assert_eq!(client.read(&mut buf).unwrap(), 5);
    }
}

/// E5, L7: a child that frees the activation leaves the inherited sockets to the parent.
#[cfg(feature = "activation")]
fn activation_freed_in_a_forked_child_adopts_in_the_parent<A: Api>() {
    if process::role().is_some() {
        let mut inherited = A::Activation::from_env().unwrap();
        assert!(Forked::run(|| {
            let sockets = system::open_sockets();
            system::drop_copy(&inherited);
            assert_eq!(system::open_sockets(), sockets - 1);
        }));
        let server = inherited.server("main", &[]).unwrap();
        assert!(Forked::run(|| {
            system::drop_copy(&inherited);
            system::drop_copy(&server);
        }));
        server.set_accept_timeout(60_000).unwrap();
        let client = A::connect(&server.endpoint(), &[]).unwrap();
        server.accept().unwrap().abort();
        client.abort();
        return report("done");
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let test = test_name!(A, "activation_freed_in_a_forked_child_adopts_in_the_parent");
    let names = [("LISTEN_FDNAMES", "main")];
    let helper = Helper::start_activated(&test, "p", vec![listener.into()], &names);
    assert_eq!(helper.next_line(), "done");
}

/// E5, L5, L7: a child of the successor frees its copies before and after the successor is ready. The
/// predecessor waits for the successor, which owns the file of the socket.
#[cfg(feature = "activation")]
fn handover_with_a_forked_child_that_frees_completes<A: Api>() {
    if process::lasting_role().is_some() {
        let mut inherited = A::Activation::from_env().unwrap();
        let server = inherited.server("main", &[]).unwrap();
        let path = server.endpoint().trim_start_matches("unix:").to_owned();
        let free = |inherited: &A::Activation| {
            assert!(Forked::run(|| {
                system::drop_copy(inherited);
                system::drop_copy(&server);
            }));
            assert!(Path::new(&path).exists());
        };
        free(&inherited);
        inherited.ready().unwrap();
        free(&inherited);
        server.set_accept_timeout(60_000).unwrap();
        server.accept().unwrap().write_all(b"new\n").unwrap();
        drop(server);
        std::process::exit(0);
    }
    let (endpoint, _dir) = somewhere(Transport::Unix);
    let server = A::listen(&endpoint, &[Opt::Handover(true)]).unwrap();
    let test = test_name!(A, "handover_with_a_forked_child_that_frees_completes");
    let given = [("main", Handed::Server(&server))];
    succeeded::<A>(&successor(&test, "s", &[]), &given).unwrap();
    // A child of the predecessor frees its copy, which neither removes the file nor ends listening.
    assert!(Forked::run(|| system::drop_copy(&server)));
    drop(server);
    let client = A::connect(&endpoint, &[Opt::ReadTimeout(60_000)]).unwrap();
    assert_eq!(client.read_line(8).unwrap(), "new");
}

/// E5, N3: a child that frees a capture leaves the packets to the parent.
#[cfg(feature = "diag")]
fn capture_freed_in_a_forked_child_captures_in_the_parent<A: Handshakes>() {
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    let Some(capture) = capture::<A>(server.port()) else {
        return;
    };
    for _ in 0..2 {
        let client = A::connect(&server.endpoint(), &[Opt::CloseTimeout(0)]).unwrap();
        assert!(Forked::run(|| {
            let sockets = system::open_sockets();
            system::drop_copy(&capture);
            assert_eq!(system::open_sockets(), sockets - 1);
        }));
        A::handshake(&capture, &client, 60_000).unwrap();
    }
}

/// Frees a service with one connection, and its server, in a forked child. A connection that a thread
/// has locked during the fork stays open in the child, so another child tries again.
#[cfg(feature = "serve")]
fn free_in_a_child<S, T>(service: &S, server: &T) {
    assert!((0..5).any(|_| Forked::run(|| {
        let sockets = system::open_sockets();
        system::drop_copy(service);
        system::drop_copy(server);
        // The listener and the connection.
        assert_eq!(system::open_sockets(), sockets - 2);
    })));
}

/// E5: a free in the child affects neither the loops nor the connections of the parent.
#[cfg(feature = "serve")]
fn event_service_freed_in_a_forked_child_serves_in_the_parent<A: Api>() {
    let (endpoint, _dir) = somewhere(Transport::Unix);
    let server = A::listen(&endpoint, &[]).unwrap();
    let service = server.serve_events(&[], hello::<A>()).unwrap();
    let connect = || {
        let peer = UnixStream::connect(endpoint.trim_start_matches("unix:")).unwrap();
        peer.set_read_timeout(Some(AT_ONCE)).unwrap();
        peer
    };
    let mut before = connect();
    echo(&mut before);
    free_in_a_child(&service, &server);
    echo(&mut before);
    echo(&mut connect());
}

/// E5: a free in the child does not affect the parent's threads, which wait in accept and in read.
#[cfg(feature = "serve")]
fn thread_service_freed_in_a_forked_child_serves_in_the_parent<A: Api>() {
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    let handler = |c: &A::Client| {
        let mut buf = [0; 4];
        while c.read_exact(&mut buf).is_ok() && c.write_all(&buf).is_ok() {}
    };
    let service = server.serve(&[], Box::new(handler)).unwrap();
    let mut before = raw_to(&server.endpoint());
    echo(&mut before);
    free_in_a_child(&service, &server);
    echo(&mut before);
    echo(&mut raw_to(&server.endpoint()));
}

/// Events of connections, in order.
#[cfg(feature = "serve")]
#[derive(Debug, PartialEq)]
enum Seen<C> {
    Open(C),
    Data,
}

/// Serves with a channel for the events of connections.
#[cfg(feature = "serve")]
fn served<A: Api>() -> (A::Server, A::Service, std::sync::mpsc::Receiver<Seen<A::Connection>>) {
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    let (sender, events) = std::sync::mpsc::channel();
    let [opened, received] = [sender.clone(), sender].map(Mutex::new);
    let on = On::<A> {
        open: Some(Box::new(move |c| drop(opened.lock().unwrap().send(Seen::Open(c.clone()))))),
        data: Some(Box::new(move |_, _| drop(received.lock().unwrap().send(Seen::Data)))),
        ..On::default()
    };
    let service = server.serve_events(&[], on).unwrap();
    (server, service, events)
}

#[cfg(feature = "serve")]
fn opened<C>(events: &std::sync::mpsc::Receiver<Seen<C>>) -> C {
    match events.recv_timeout(AT_ONCE).unwrap() {
        Seen::Open(connection) => connection,
        Seen::Data => panic!("on_data before on_open"),
    }
}

/// E5: a callback forks, and the child returns from it. Services do not run in the child, which would take
/// connections and data from the parent.
#[cfg(feature = "serve")]
fn callback_that_returns_in_a_forked_child_ends_the_child<A: Api>() {
    let (send, children) = std::sync::mpsc::channel();
    // False in the child.
    let fork = move || Forked::returning().is_some_and(|child| send.send(child).is_ok());
    let fork = Arc::new(Mutex::new(fork));
    for by_events in [true, false] {
        let server = A::listen("127.0.0.1:0", &[]).unwrap();
        let forks = fork.clone();
        let service = if by_events {
            let data = move |c: &A::Connection, data: &[u8]| {
                if (forks.lock().unwrap())() {
                    drop(c.send(data));
                }
            };
            server.serve_events(&[], On { data: Some(Box::new(data)), ..On::default() }).unwrap()
        } else {
            let serve = move |c: &A::Client| {
                let mut buf = [0; 4];
                c.read_exact(&mut buf).unwrap();
                if (forks.lock().unwrap())() {
                    drop(c.write_all(&buf));
                }
            };
            server.serve(&[], Box::new(serve)).unwrap()
        };
        for _ in 0..3 {
            let mut peer = raw_to(&server.endpoint());
            peer.write_all(b"ping").unwrap();
            let mut buf = [0; 4];
            peer.read_exact(&mut buf).unwrap();
            assert_eq!(&buf, b"ping");
            let child: Forked = children.recv_timeout(AT_ONCE).unwrap();
            assert_eq!(child.end(), Some(0), "by events: {by_events}");
        }
        assert_eq!(service.stats().opened, 3);
        drop(service);
    }
}

/// V7: a child holds a copy of a closed connection, so the kernel still reports the bytes of its peer
/// (epoll(7)). The report has the number of an entry, which holds another connection now.
#[cfg(feature = "serve")]
fn connection_in_a_reused_entry_opens_before_data<A: Api>() {
    let (server, service, events) = served::<A>();
    let mut stale = raw_to(&server.endpoint());
    let connection = opened(&events);
    // The parent does not see a child that is made without the handlers of pthread_atfork(3).
    let _child = Forked::by_clone();
    connection.close();
    eventually("the entry is free", || service.connections() == 0);
    // The loop waits in a function.
    let (enter, entered) = std::sync::mpsc::channel();
    let (release, released) = std::sync::mpsc::channel();
    let waits = move || {
        enter.send(()).unwrap();
        released.recv_timeout(AT_ONCE).unwrap();
    };
    service.post(Box::new(waits)).unwrap();
    entered.recv_timeout(AT_ONCE).unwrap();
    let (client, mut peer) = with_raw_peer::<A>(&[]);
    peer.write_all(b"new").unwrap();
    assert!(system::becomes_readable(client.fd().unwrap(), 10_000));
    let added = service.add(client, 1).map_err(|(_, e)| e).unwrap();
    assert_eq!(added.place(), connection.place());
    stale.write_all(b"stale").unwrap();
    release.send(()).unwrap();
    assert_eq!(opened(&events).id(), added.id());
    assert!(matches!(events.recv_timeout(AT_ONCE), Ok(Seen::Data)));
}

/// F7: a connection that is closed leaves no registration with the kernel, although a forked child holds
/// a copy of its descriptor.
#[cfg(feature = "serve")]
fn closed_connection_with_forked_child_leaves_the_poller<A: Api>() {
    let (server, service, events) = served::<A>();
    let before = system::registrations();
    for closes in [true, false] {
        let peer = raw_to(&server.endpoint());
        let connection = opened(&events);
        eventually("it is registered", || system::registrations() > before);
        let _child = Forked::new(|| {});
        if closes {
            connection.close();
        } else {
            connection.abort();
        }
        eventually("the entry is free", || service.connections() == 0);
        assert_eq!(system::registrations(), before);
        drop(peer);
    }
}

/// Forks while another thread makes a descriptor: `make` runs between the handlers of the library and
/// fork(2), and returns the number. Then a child that has no such descriptor, because the kernel has
/// copied the others before, opens a file, and frees the service.
#[cfg(feature = "serve")]
fn fork_while_a_descriptor_is_made<S>(service: &S, make: impl FnOnce() -> i32 + Send + 'static) {
    static MADE: std::sync::atomic::AtomicI32 = std::sync::atomic::AtomicI32::new(-1);
    *BEFORE_FORK.lock().unwrap() = Some(Box::new(move || MADE.store(make(), Ordering::SeqCst)));
    assert!(Forked::run(|| {
        let number = MADE.load(Ordering::SeqCst);
        assert!(system::is_open(number));
        system::replace(number);
        system::drop_copy(service);
        assert!(system::is_open(number), "the child has closed its own file");
    }));
}

/// E5: a child closes no number of a connection that its parent has accepted during the fork.
#[cfg(feature = "serve")]
fn service_freed_in_a_child_forked_during_an_accept_closes_no_other_file<A: Api>() {
    // The handler that is registered first runs last before the fork.
    system::at_fork(before_fork, in_parent);
    for events in [true, false] {
        let server = A::listen("127.0.0.1:0", &[]).unwrap();
        let (accept, accepted) = std::sync::mpsc::channel();
        let accept = Mutex::new(accept);
        let tell = move |fd: i32| accept.lock().unwrap().send(fd).unwrap();
        let service = if events {
            let open = move |c: &A::Connection| tell(c.fd().unwrap());
            server.serve_events(&[], On { open: Some(Box::new(open)), ..On::default() }).unwrap()
        } else {
            let handler = move |c: &A::Client| {
                tell(c.fd().unwrap());
                let _ = c.read(&mut [0]);
            };
            server.serve(&[], Box::new(handler)).unwrap()
        };
        let endpoint = server.endpoint();
        let (keep, kept) = std::sync::mpsc::channel();
        fork_while_a_descriptor_is_made(&service, move || {
            keep.send(raw_to(&endpoint)).unwrap();
            accepted.recv_timeout(AT_ONCE).unwrap()
        });
        drop(kept);
        service.drain(60_000).unwrap();
    }
}

/// E5: as for an accept, with a file that waits to be sent.
#[cfg(feature = "serve")]
fn service_freed_in_a_child_forked_during_a_send_closes_no_other_file<A: Api>() {
    use std::os::fd::AsRawFd;
    system::at_fork(before_fork, in_parent);
    let (server, service, events) = served::<A>();
    let peer = raw_to(&server.endpoint());
    let connection = opened(&events);
    let file = system::blank_file(64 << 20);
    fork_while_a_descriptor_is_made(&service, move || {
        let number = file.as_raw_fd();
        connection.send_file(number, 0, u64::MAX).unwrap();
        assert!(connection.queued() > 0);
        let is_copy = |fd: &i32| *fd != number && system::identity(*fd) == system::identity(number);
        (0..1000).find(is_copy).unwrap()
    });
    drop(peer);
    service.drain(60_000).unwrap();
}

/// E5: a thread of the parent, which is in a call on the connection, holds a lock that no thread of the
/// child unlocks.
#[cfg(feature = "serve")]
fn connection_in_a_forked_child_does_not_wait_for_the_loop<A: Api>() {
    let (server, service, events) = served::<A>();
    let peer = raw_to(&server.endpoint());
    let connection = opened(&events);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let _stop = support::OnDrop(|| stop.store(true, Ordering::Relaxed));
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                (&peer).write_all(&[0; 1 << 16]).unwrap();
            }
        });
        for _ in 0..50 {
            events.recv_timeout(AT_ONCE).unwrap();
            assert!(Forked::run(|| {
                let _ = (connection.is_open(), connection.queued(), connection.data());
                let _ = (connection.five_tuple(), connection.stats(), connection.close_reason());
                // These do nothing, or fail.
                connection.close();
                connection.abort();
            }));
        }
    });
    assert!(connection.is_open());
    drop(peer);
    service.drain(60_000).unwrap();
}

/// E5: a child returns no statistics of a service that runs in its parent, where a thread may hold a
/// lock. In C the function fails.
#[test]
#[cfg(feature = "serve")]
fn stats_in_a_forked_child_are_zero() {
    for events in [true, false] {
        let server = keepsock::ServerSocket::listen("127.0.0.1:0").unwrap();
        let echo = |c: &keepsock::Connection, data: &[u8]| drop(c.send(data));
        let service = match events {
            true => server.serve_events(&keepsock::ServeOptions::new(), echo).unwrap(),
            false => server.serve(|c| drop(c.read(&mut [0]))).unwrap(),
        };
        let before = service.stats();
        let same = Forked::run(|| {
            let stats = service.stats();
            assert_eq!((stats.accepting, stats.connections, stats.opened), (false, 0, 0));
            assert_eq!(stats.endpoints, before.endpoints);
            assert!(service.dump().contains("not accepting"));
            service.stop();
        });
        assert!(same);
        assert!(service.stats().accepting);
    }
}

/// E5, V2: a child writes nothing to a connection of the parent's service, and changes no option of its
/// socket.
#[cfg(feature = "serve")]
fn connection_in_a_forked_child_does_not_change<A: Api>() {
    use keepsock::Sockopt;
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    let (opened, open) = std::sync::mpsc::channel();
    let opened = std::sync::Mutex::new(opened);
    let on = On::<A> {
        open: Some(Box::new(move |c| drop(opened.lock().unwrap().send(c.clone())))),
        ..On::default()
    };
    let service = server.serve_events(&[], on).unwrap();
    let client = A::connect(&server.endpoint(), &[]).unwrap();
    let connection: A::Connection = open.recv_timeout(Duration::from_secs(60)).unwrap();
    let before = connection.keepalive_values().unwrap();
    assert!(Forked::run(|| {
        fails(connection.send(b"x"), ErrorKind::WrongState);
        fails(connection.send_slices(&[b"x", b"y"]), ErrorKind::WrongState);
        let file = system::blank_file(1);
        let fd = std::os::fd::AsRawFd::as_raw_fd(&file);
        fails(connection.send_file(fd, 0, 1), ErrorKind::WrongState);
        fails(connection.set_sockopt(Sockopt::SendBuffer, 1 << 16), ErrorKind::WrongState);
        fails(connection.set_keepalive(5000, 5000, 3), ErrorKind::WrongState);
        fails(connection.set_dead_after(5000), ErrorKind::WrongState);
        fails(connection.set_idle_timeout(5000), ErrorKind::WrongState);
        fails(connection.set_heartbeat(b"x", 5000), ErrorKind::WrongState);
        fails(connection.set_heartbeat_timeout(5000), ErrorKind::WrongState);
        connection.close();
        connection.abort();
        connection.shutdown_write();
    }));
    assert_eq!(connection.keepalive_values().unwrap(), before);
    assert!(connection.is_open());
    connection.send(b"y").unwrap();
    let mut byte = [0; 1];
    client.read_exact(&mut byte).unwrap();
    assert_eq!(&byte, b"y");
    drop(client);
    service.drain(60_000).unwrap();
}

/// E5, E2: the threads of a service run in the parent only, so a child that waits for them would wait
/// forever.
#[cfg(all(feature = "datagram", feature = "serve"))]
fn wait_for_a_service_in_a_forked_child_fails<A: Api>() {
    for events in [false, true] {
        let server = A::listen("127.0.0.1:0", &[]).unwrap();
        let service = match events {
            true => server.serve_events(&[], hello::<A>()).unwrap(),
            false => server.serve(&[], Box::new(|c| drop(c.read(&mut [0; 8])))).unwrap(),
        };
        let socket = A::Datagram::bind("127.0.0.1:0", &[]).unwrap();
        let datagrams = socket.serve(1, Box::new(|_, _| ())).unwrap();
        assert!(Forked::run(|| {
            fails(service.wait_stopped(INFINITE), ErrorKind::WrongState);
            fails(service.wait(INFINITE), ErrorKind::WrongState);
            fails(service.drain(INFINITE), ErrorKind::WrongState);
            fails(service.push(None, b"x"), ErrorKind::WrongState);
            if events {
                fails(service.connect(&server.endpoint(), &[], 0), ErrorKind::WrongState);
                let never = || panic!("runs in the parent");
                fails(service.post(Box::new(never)), ErrorKind::WrongState);
                fails(service.add_timer(0, 0, Box::new(|_| ())), ErrorKind::WrongState);
                fails(service.remove_timer(1), ErrorKind::WrongState);
                fails(service.for_each(&mut |_| panic!("in the parent")), ErrorKind::WrongState);
            }
            fails(datagrams.wait(INFINITE), ErrorKind::WrongState);
            let other = A::Datagram::bind("127.0.0.1:0", &[]).unwrap();
            fails(other.add_to(&datagrams), ErrorKind::WrongState);
            datagrams.stop();
            // The service does not use the child's copies of the sockets.
            server.set_cancel(None).unwrap();
            socket.set_cancel(None).unwrap();
            drop((server.release().unwrap(), socket.release().unwrap()));
        }));
        fails(datagrams.wait(0), ErrorKind::TimedOut);
        datagrams.stop();
        datagrams.wait(60_000).unwrap();
        service.drain(60_000).unwrap();
    }
}

/// E5: the handler of a datagram service forks, and the child returns from it.
#[cfg(all(feature = "datagram", feature = "serve"))]
fn datagram_handler_that_returns_in_a_forked_child_ends_the_child<A: Api>() {
    let socket = A::Datagram::bind("127.0.0.1:0", &[]).unwrap();
    let peer = A::Datagram::bind("127.0.0.1:0", &[Opt::ReadTimeout(60_000)]).unwrap();
    let to = format!("127.0.0.1:{}", socket.port()).parse().unwrap();
    let (send, children) = std::sync::mpsc::channel();
    let send = Mutex::new(send);
    let answer = move |reply: &dyn Fn(&[u8]) -> support::Outcome<()>, got: &support::Got| {
        if let Some(child) = Forked::returning() {
            drop(send.lock().unwrap().send(child));
            drop(reply(&got.bytes));
        }
    };
    let _service = socket.serve(1, Box::new(answer)).unwrap();
    for _ in 0..3 {
        peer.send_to(b"ping", to).unwrap();
        assert_eq!(peer.recv(8).unwrap().bytes, b"ping");
        let child: Forked = children.recv_timeout(AT_ONCE).unwrap();
        assert_eq!(child.end(), Some(0));
    }
}

/// E5: waiting calls of the parent continue.
#[cfg(all(feature = "datagram", feature = "serve"))]
fn datagram_freed_in_a_forked_child_receives_in_the_parent<A: Api>() {
    for serves in [false, true] {
        let socket = A::Datagram::bind("127.0.0.1:0", &[]).unwrap();
        let peer = A::Datagram::bind("127.0.0.1:0", &[Opt::ReadTimeout(60_000)]).unwrap();
        let to = format!("127.0.0.1:{}", socket.port()).parse().unwrap();
        if serves {
            let answer = |reply: &dyn Fn(&[u8]) -> support::Outcome<()>, got: &support::Got| {
                drop(reply(&got.bytes));
            };
            let service = socket.serve(1, Box::new(answer)).unwrap();
            assert!(Forked::run(|| {
                system::drop_copy(&service);
                system::drop_copy(&socket);
            }));
            peer.send_to(b"ping", to).unwrap();
            assert_eq!(peer.recv(8).unwrap().bytes, b"ping");
        } else {
            let (got, _) = while_waiting(
                || socket.recv(8),
                || {
                    assert!(Forked::run(|| system::drop_copy(&socket)));
                    peer.send_to(b"ping", to).unwrap();
                },
            );
            assert_eq!(got.unwrap().bytes, b"ping");
        }
    }
}

/// T3, E5: an accept of a child on its parent's server ends by the child's close, and the parent's
/// threads continue to accept.
fn accept_in_a_forked_child_ends_when_the_child_closes<A: Api>() {
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    let (accepted, _) = while_waiting(
        || server.accept(),
        || {
            assert!(Forked::run(|| {
                let (outcome, _) = while_waiting(|| server.accept(), || server.close());
                fails(outcome, ErrorKind::Closed);
            }));
            A::connect(&server.endpoint(), &[]).unwrap().abort();
        },
    );
    accepted.unwrap().abort();
}

/// E5, L7: an accept of a child sleeps, although its parent has closed the server and set the event that
/// both share.
#[cfg(feature = "activation")]
fn accept_in_a_forked_child_sleeps_after_the_parent_has_closed<A: Api>() {
    let server = A::listen("127.0.0.1:0", &[Opt::Handover(true)]).unwrap();
    let (mut parent, mut child) = UnixStream::pair().unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            parent.read_exact(&mut [0]).unwrap();
            server.close();
            parent.write_all(b"c").unwrap();
        });
        assert!(Forked::run(|| {
            child.write_all(b"f").unwrap();
            child.read_exact(&mut [0]).unwrap();
            let before = watch::cpu_time();
            server.set_accept_timeout(500).unwrap();
            fails(server.accept(), ErrorKind::TimedOut);
            let used = watch::cpu_time() - before;
            assert!(used < Duration::from_millis(200), "{used:?} of processor time");
        }));
    });
}

/// I4: a read of the child does not wait for threads of the parent that are in calls on the
/// connection.
fn read_in_a_forked_child_does_not_wait_for_the_parents_threads<A: Api>() {
    let p = pair_with::<A>(Transport::Tcp, &[Opt::CloseTimeout(0)]);
    let (outcome, _) = while_waiting(
        || p.client.read(&mut [0; 8]),
        || {
            assert!(Forked::run(|| {
                // Both directions are closed: a reader waits for the other calls of its process.
                p.client.shutdown_write().unwrap();
                p.accepted.shutdown_write().unwrap();
                assert_eq!(p.client.read(&mut [0; 8]).unwrap(), 0);
            }));
        },
    );
    assert_eq!(outcome.unwrap(), 0);
}

/// I4: the kernel reports a reset once, here to the child. A FIN stays a FIN, whichever process has
/// replied to it.
fn reset_met_by_a_forked_child_is_a_reset_in_the_parent<A: Api>() {
    type Meet<A> = fn(&<A as Api>::Client);
    let meets: [Meet<A>; 4] = [
        |c| drop(fails(c.read(&mut [0; 8]), ErrorKind::Reset)),
        |c| assert_eq!(c.wait_hangup(0).unwrap(), CloseReason::PeerReset),
        |c| drop(fails(c.check_liveness(), ErrorKind::Reset)),
        |c| drop(fails(c.write_all(b"x"), ErrorKind::Reset)),
    ];
    for meet in meets {
        let p = pair_with::<A>(Transport::Tcp, &[]);
        p.accepted.abort();
        assert_eq!(p.client.close_reason(), None);
        assert!(Forked::run(|| drop(fails(p.client.read(&mut [0; 8]), ErrorKind::Reset))));
        meet(&p.client);
        assert_eq!(p.client.close_reason(), Some(CloseReason::PeerReset));
        fails(p.client.read(&mut [0; 8]), ErrorKind::Reset);
        fails(p.client.write_all(b"x"), ErrorKind::Reset);
        assert_eq!(p.client.wait_hangup(0).unwrap(), CloseReason::PeerReset);
    }
    let p = pair_with::<A>(Transport::Tcp, &[Opt::CloseTimeout(0)]);
    p.accepted.close().unwrap();
    assert!(Forked::run(|| p.client.shutdown_write().unwrap()));
    assert_eq!(p.client.wait_hangup(0).unwrap(), CloseReason::PeerClosed);
    assert_eq!(p.client.read(&mut [0; 8]).unwrap(), 0);
}

/// E5: a child releases a connection while threads of the parent are in calls on it.
fn release_in_a_forked_child_disregards_the_parents_calls<A: Api>() {
    type Call<A> = fn(&<A as Api>::Client);
    let calls: [Call<A>; 3] = [
        |c| drop(c.read(&mut [0; 8])),
        |c| drop(c.read_line(64)),
        |c| drop(c.wait_hangup(INFINITE)),
    ];
    for call in calls {
        let p = pair_with::<A>(Transport::Tcp, &[Opt::CloseTimeout(0)]);
        while_waiting(
            || call(&p.client),
            || {
                assert!(Forked::run(|| {
                    let adopted = A::adopt_client(p.client.release().unwrap(), &[]).unwrap();
                    fails(p.client.write_all(b"x"), ErrorKind::Closed);
                    adopted.write_all(b"from the child\n").unwrap();
                }));
                assert_eq!(p.accepted.read_line(64).unwrap(), "from the child");
                p.accepted.abort();
            },
        );
    }
}

/// E5: in the child the write lock is held by a thread that does not exist.
fn write_in_a_forked_child_does_not_wait_for_the_parents_writer<A: Api>() {
    let p = pair_with::<A>(Transport::Tcp, &[Opt::CloseTimeout(0)]);
    let all = vec![0; 8 << 20];
    let (outcome, _) = while_waiting(
        || p.client.write_all(&all),
        || {
            assert!(Forked::run(|| {
                p.client.set_write_timeout(60_000).unwrap();
                thread::scope(|scope| {
                    scope.spawn(|| {
                        let mut buf = vec![0; 1 << 20];
                        while p.accepted.read(&mut buf).unwrap() > 0 {}
                    });
                    let outcome = [p.client.write(b"1"), p.client.write(b"2")];
                    // Ends the parent's write, and the reader of this child.
                    p.client.shutdown_write().unwrap();
                    assert_eq!(outcome.map(Result::unwrap), [1, 1]);
                });
            }));
        },
    );
    drop(outcome);
}

/// E5: _Fork() and clone(2) run no handlers of pthread_atfork(3).
fn client_freed_in_a_cloned_child_stays_open_in_the_parent<A: Api>() {
    type End<A> = fn(&<A as Api>::Client);
    let ends: [End<A>; 3] = [|c| system::drop_copy(c), |c| c.close().unwrap(), |c| c.abort()];
    for end in ends {
        let p = pair_with::<A>(Transport::Tcp, &[Opt::CloseTimeout(20_000)]);
        p.client.write_all(b"before\n").unwrap();
        let endpoint = p.server.endpoint();
        assert!(Forked::run_by_clone(|| {
            let own = A::connect(&endpoint, &[Opt::CloseTimeout(0)]).unwrap();
            end(&p.client);
            own.write_all(b"own\n").unwrap();
            own.close().unwrap();
        }));
        let accepted = p.server.accept().unwrap();
        assert_eq!(accepted.read_line(64).unwrap(), "own");
        p.client.write_all(b"after\n").unwrap();
        assert_eq!(p.accepted.read_line(64).unwrap(), "before");
        assert_eq!(p.accepted.read_line(64).unwrap(), "after");
        p.accepted.abort();
    }
}

/// I3: the closer's thread stays with the parent. A child does not depend on it, and starts its own
/// closer.
fn background_closer_starts_again_in_a_forked_child<A: Api>() {
    let (pending, mut peer) = with_raw_peer::<A>(&[Opt::CloseTimeout(20_000)]);
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    let endpoint = server.endpoint();
    pending.write_all(b"x").unwrap();
    let fd = pending.fd().unwrap();
    drop(pending);
    // While the closer holds its lock, a child cannot close its copy.
    eventually("the closer waits", || system::waits_for_events("keepsock-close"));
    assert!(Forked::run(|| {
        assert!(!system::is_open(fd), "the child has a copy");
        let client = A::connect(&endpoint, &[Opt::CloseTimeout(20_000)]).unwrap();
        client.write_all(b"from the child").unwrap();
        drop(client);
        eventually("the closer runs", || system::has_thread("keepsock-close"));
        let accepted = server.accept().unwrap();
        let mut all = [0; 14];
        accepted.read_exact(&mut all).unwrap();
        assert_eq!(accepted.wait_hangup(INFINITE).unwrap(), keepsock::CloseReason::PeerClosed);
        accepted.shutdown_write().unwrap();
        thread::sleep(Duration::from_millis(1));
    }));
    // The closer of the parent continues.
    peer.set_read_timeout(Some(AT_ONCE)).unwrap();
    assert_eq!(end_of(&peer), Ok(b"x".to_vec()));
    peer.write_all(b"still taken").unwrap();
    assert!(!system::has_error(std::os::fd::AsRawFd::as_raw_fd(&peer)));
}

/// E5: the closer holds its lock while it reads. A fork waits for the lock, and the child closes its
/// copies.
fn fork_while_the_closer_reads_leaves_no_copy<A: Api>() {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let _stop = support::OnDrop(|| stop.store(true, Ordering::Relaxed));
        let mut numbers = Vec::new();
        for _ in 0..2 {
            let (client, peer) = with_raw_peer::<A>(&[Opt::CloseTimeout(60_000)]);
            client.write_all(b"x").unwrap();
            numbers.push(client.fd().unwrap());
            drop(client);
            let stop = &stop;
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) && (&peer).write(&[0; 1 << 16]).is_ok() {}
            });
        }
        for _ in 0..100 {
            assert!(Forked::run(|| assert!(!numbers.iter().any(|fd| system::is_open(*fd)))));
        }
        assert!(numbers.iter().all(|fd| system::is_open(*fd)), "the closer has not finished");
    });
}

/// The log events of the closer, and how many of them the logger lets pass.
static EVENTS: AtomicUsize = AtomicUsize::new(0);
static PASS: AtomicUsize = AtomicUsize::new(0);

/// A logger that holds the closer at each event.
struct Holds;

impl log::Log for Holds {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, _: &log::Record<'_>) {
        if thread::current().name() == Some("keepsock-close") {
            let number = EVENTS.fetch_add(1, Ordering::SeqCst);
            while PASS.load(Ordering::SeqCst) <= number {
                thread::sleep(Duration::from_millis(1));
            }
        }
    }

    fn flush(&self) {}
}

/// E5: the closer logs the end of one of several connections that have ended. At that moment it owns no
/// socket that the child cannot close.
fn fork_while_the_closer_logs_leaves_no_copy<A: Api>() {
    log::set_logger(&Holds).unwrap();
    log::set_max_level(log::LevelFilter::Trace);
    let mut numbers = Vec::new();
    let mut peers = Vec::new();
    for _ in 0..8 {
        let (client, peer) = with_raw_peer::<A>(&[Opt::CloseTimeout(60_000)]);
        client.write_all(b"x").unwrap();
        numbers.push(client.fd().unwrap());
        drop(client);
        peers.push(peer);
    }
    let mut peers = peers.into_iter();
    peers.next().into_iter().for_each(system::reset);
    eventually("the closer logs", || EVENTS.load(Ordering::SeqCst) == 1);
    peers.for_each(system::reset);
    PASS.store(1, Ordering::SeqCst);
    eventually("the closer logs again", || EVENTS.load(Ordering::SeqCst) == 2);
    assert!(Forked::run(|| assert!(!numbers.iter().any(|fd| system::is_open(*fd)))));
    PASS.store(usize::MAX, Ordering::SeqCst);
}

type Action = Box<dyn FnOnce() + Send>;

/// The actions of the fork handlers.
static BEFORE_FORK: Mutex<Option<Action>> = Mutex::new(None);
static IN_PARENT: Mutex<Option<Action>> = Mutex::new(None);

extern "C" fn before_fork() {
    BEFORE_FORK.lock().unwrap().take().into_iter().for_each(|action| action());
}

extern "C" fn in_parent() {
    IN_PARENT.lock().unwrap().take().into_iter().for_each(|action| action());
}

/// I3: another thread closes a connection before fork(2) has returned. A handler that was registered
/// first runs at that moment.
fn close_between_fork_and_return_reaches_the_peer<A: Api>() {
    system::at_fork(before_fork, in_parent);
    let (client, peer) = with_raw_peer::<A>(&[Opt::CloseTimeout(0)]);
    peer.set_read_timeout(Some(AT_ONCE)).unwrap();
    *IN_PARENT.lock().unwrap() = Some(Box::new(move || client.abort()));
    let _child = Forked::new(|| {});
    assert!(IN_PARENT.lock().unwrap().is_none());
    assert_eq!(end_of(&peer), Err(IoKind::ConnectionReset));
}

/// I3: the handlers of the program run while this thread has the lock of the closer.
fn free_in_a_fork_handler_returns<A: Api>() {
    system::at_fork(before_fork, in_parent);
    let mut peers = Vec::new();
    for at in [&BEFORE_FORK, &IN_PARENT] {
        let (client, peer) = with_raw_peer::<A>(&[Opt::CloseTimeout(60_000)]);
        client.write_all(b"x").unwrap();
        *at.lock().unwrap() = Some(Box::new(move || drop(client)));
        peers.push(peer);
    }
    // The closer has a lock from here on.
    let (first, peer) = with_raw_peer::<A>(&[Opt::CloseTimeout(60_000)]);
    first.write_all(b"x").unwrap();
    drop(first);
    peers.push(peer);
    let _child = Forked::new(|| {});
    for peer in &peers {
        peer.set_read_timeout(Some(AT_ONCE)).unwrap();
        assert_eq!(end_of(peer), Ok(b"x".to_vec()));
    }
}

/// The number of events of this process that are set (eventfd(2), proc_pid_fdinfo(5)).
fn events_set() -> usize {
    let is_set = |info: &String| {
        let count = info.lines().find_map(|line| line.strip_prefix("eventfd-count:"));
        count.is_some_and(|count| count.trim() != "0")
    };
    let infos = std::fs::read_dir("/proc/self/fdinfo").unwrap();
    let texts = infos.filter_map(|info| std::fs::read_to_string(info.unwrap().path()).ok());
    texts.filter(is_set).count()
}

/// T2, E5: firing and resetting a token in one process does not affect the other. In the child the
/// token cancels the calls of the child.
fn token_fired_in_a_forked_child_is_not_fired_in_the_parent<A: Api>() {
    let token = A::token();
    let p = pair_with::<A>(Transport::Tcp, &[Opt::Cancel(&token), Opt::CloseTimeout(0)]);
    assert!(Forked::run(|| {
        thread::scope(|scope| {
            let read = scope.spawn(|| p.client.read(&mut [0; 8]));
            token.fire();
            fails(read.join().unwrap(), ErrorKind::Cancelled);
        });
        fails(p.client.read(&mut [0; 8]), ErrorKind::Cancelled);
        token.reset();
        p.client.set_read_timeout(1).unwrap();
        fails(p.client.read(&mut [0; 8]), ErrorKind::TimedOut);
        token.fire();
        // The descriptor shows the state of the parent's token.
        fails(token.fd(), ErrorKind::WrongState);
    }));
    assert!(!token.is_fired());
    assert_eq!(events_set(), 0);
    // A reset in the child leaves the token of the parent fired.
    token.fire();
    assert!(Forked::run(|| token.reset()));
    assert_eq!(events_set(), 1);
    fails(p.client.read(&mut [0; 8]), ErrorKind::Cancelled);
    token.reset();
    while_waiting(
        || fails(p.client.read(&mut [0; 8]), ErrorKind::Cancelled),
        || {
            assert!(Forked::run(|| token.fire()));
            token.fire();
        },
    );
}

/// I3: a pending connect that is dropped ends its connection at once, although a forked child has
/// copies of its descriptors.
fn pending_connect_dropped_with_forked_child_ends_its_connection<A: Api>() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut connecting = A::start(&listener.local_addr().unwrap().to_string(), &[]).unwrap();
    connecting.fd().unwrap();
    let (peer, _) = listener.accept().unwrap();
    peer.set_read_timeout(Some(AT_ONCE)).unwrap();
    let _child = Forked::new(|| {});
    drop(connecting);
    assert_ne!(end_of(&peer), Err(IoKind::WouldBlock));
}

/// The number of sockets of this machine in the state SYN_SENT with this peer.
fn syns_sent(peer: &str) -> usize {
    let port: u16 = peer.rsplit_once(':').unwrap().1.parse().unwrap();
    let sockets = std::fs::read_to_string("/proc/net/tcp").unwrap();
    // proc_pid_net(5): the remote address is the third field, the state is the fourth.
    let remote_and_state = format!(":{port:04X} 02 ");
    sockets.lines().filter(|line| line.contains(&remote_and_state)).count()
}

/// I3, C2: an attempt that is cancelled ends at once, although a forked child has a copy of its
/// descriptor. The kernel would otherwise go on to connect.
fn pending_connect_cancelled_with_forked_child_ends_its_attempt<A: Api>() {
    let queue = FullQueue::new();
    let token = A::token();
    let mut connecting = A::start(&queue.endpoint(), &[Opt::Cancel(&token)]).unwrap();
    assert_eq!(syns_sent(&queue.endpoint()), 1);
    let _child = Forked::new(|| {});
    token.fire();
    fails(connecting.finish(), ErrorKind::Cancelled);
    assert_eq!(syns_sent(&queue.endpoint()), 0);
}

/// The options of a connect whose first attempt hangs, and whose second attempt goes to `server`.
fn second_attempt<'a, A: Api>(hangs: &FullQueue, server: &A::Server) -> [Opt<'a, A>; 3] {
    [
        Opt::Address(hangs.endpoint().parse().unwrap()),
        Opt::Address(server.endpoint().parse().unwrap()),
        Opt::AttemptDelay(1000),
    ]
}

/// E5: a child that frees a pending connect leaves the parent's descriptors and timers as they are.
fn pending_connect_freed_in_a_forked_child_finishes_in_the_parent<A: Api>() {
    let (queue, server) = (FullQueue::new(), A::listen("127.0.0.1:0", &[]).unwrap());
    let options = second_attempt::<A>(&queue, &server);
    let mut connecting = A::start("service:80", &options).unwrap();
    let fd = connecting.fd().unwrap();
    assert!(connecting.finish().unwrap().is_none());
    assert!(Forked::run(|| system::drop_copy(&connecting)));
    // As an event loop waits: the descriptor reports the delay, and then the second attempt.
    // A call of finish before the first wait would set the timer again.
    let client = loop {
        assert!(system::becomes_readable(fd, 30_000), "the descriptor reports nothing");
        if let Some(client) = connecting.finish().unwrap() {
            break client;
        }
    };
    client.write_all(b"after\n").unwrap();
    assert_eq!(server.accept().unwrap().read_line(64).unwrap(), "after");
}

/// E5, C7: a failed attempt does not keep the descriptor of a pending connect readable while a forked
/// child has a copy of its socket.
fn attempt_that_failed_with_a_forked_copy_reports_once<A: Api>() {
    let queues = [FullQueue::new(), FullQueue::new()];
    let [first, second] = [0, 1].map(|n| queues[n].endpoint());
    let options: [Opt<'_, A>; 3] = [
        Opt::Address(first.parse().unwrap()),
        Opt::Address(second.parse().unwrap()),
        Opt::AttemptDelay(10),
    ];
    let mut connecting = A::start("service:80", &options).unwrap();
    let fd = connecting.fd().unwrap();
    while connecting.attempts_in_progress().len() < 2 {
        assert!(system::becomes_readable(fd, 30_000), "the second attempt does not start");
        assert!(connecting.finish().unwrap().is_none());
    }
    let [first, _second] = queues;
    let _child = Forked::new(|| system::drop_copy(&first));
    // The next SYN gets RST.
    drop(first);
    while connecting.attempts().is_empty() {
        assert!(system::becomes_readable(fd, 30_000), "the failure is not reported");
        assert!(connecting.finish().unwrap().is_none());
    }
    assert!(!system::becomes_readable(fd, 200), "the failed attempt is reported again");
}

/// E5: as for a pending connect.
#[cfg(feature = "serve")]
fn service_connect_with_a_forked_child_that_frees_finishes<A: Api>() {
    let (queue, upstream) = (FullQueue::new(), A::listen("127.0.0.1:0", &[]).unwrap());
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    let service = server.serve_events(&[], hello::<A>()).unwrap();
    let options = second_attempt::<A>(&queue, &upstream);
    service.connect("service:80", &options, 1).unwrap();
    assert!(Forked::run(|| {
        system::drop_copy(&service);
        system::drop_copy(&server);
    }));
    upstream.set_accept_timeout(10_000).unwrap();
    let accepted = upstream.accept().unwrap();
    accepted.set_read_timeout(10_000).unwrap();
    accepted.write_all(b"ping").unwrap();
    let mut buf = [0; 4];
    accepted.read_exact(&mut buf).unwrap();
    assert_eq!(&buf, b"ping");
}

/// E5: a child that frees a reconnect object during a try leaves the parent's try as it is.
fn reconnect_freed_in_a_forked_child_connects_in_the_parent<A: Api>() {
    let queue = FullQueue::new();
    let mut reconnect = A::reconnect(&queue.endpoint(), &[]).unwrap();
    let (failed, waits) = (Arc::new(AtomicBool::new(false)), Waits::default());
    let told = failed.clone();
    reconnect.on_retry(Box::new(move |_| told.store(true, Ordering::Relaxed)));
    reconnect.set_watch(waits.watch());
    assert!(reconnect.try_connect().unwrap().is_none());
    assert_eq!(waits.descriptors(), 1, "the try waits for its socket");
    assert!(Forked::run(|| system::drop_copy(&reconnect)));
    queue.make_room();
    while reconnect.try_connect().unwrap().is_none() {
        waits.wait();
    }
    assert!(!failed.load(Ordering::Relaxed), "the first try connects");
}

/// I3: the close of a datagram socket ends the calls that wait, although a forked child has a copy.
#[cfg(all(feature = "datagram", feature = "serve"))]
fn datagram_closed_with_forked_child_ends_waiting_calls<A: Api>() {
    for transport in TRANSPORTS {
        let (endpoint, _dir) = somewhere(transport);
        let socket = A::Datagram::bind(&endpoint, &[]).unwrap();
        let _child = Forked::new(|| {});
        let (outcome, _) = while_waiting(|| socket.recv(8), || socket.close());
        fails(outcome, ErrorKind::Closed);
    }
}

/// E5, L5: the parent owns the file of a Unix datagram socket.
#[cfg(all(feature = "datagram", feature = "serve"))]
fn unix_datagram_freed_in_a_forked_child_receives_in_the_parent<A: Api>() {
    type End<A> = fn(&<A as Api>::Datagram);
    let ends: [End<A>; 2] = [|s| system::drop_copy(s), |s| s.close()];
    for end in ends {
        let (endpoint, _dir) = somewhere(Transport::Unix);
        let socket = A::Datagram::bind(&endpoint, &[Opt::ReadTimeout(10_000)]).unwrap();
        assert!(Forked::run(|| end(&socket)));
        let peer = std::os::unix::net::UnixDatagram::unbound().unwrap();
        peer.send_to(b"ping", endpoint.trim_start_matches("unix:")).unwrap();
        assert_eq!(socket.recv(8).unwrap().bytes, b"ping");
    }
}
