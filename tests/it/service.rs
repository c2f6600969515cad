//! V1, V2, V7, V9: services in each serving mode: wake-ups of waiting threads, failures of serve,
//! and the threads of a service.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::support::libc;
use crate::support::*;
use crate::support::{limits, process, watch};
use keepsock::ErrorKind;

both_apis![
    wait_stopped_is_not_woken_by_connections,
    wait_is_woken_by_the_last_connection_only,
    wait_returns_when_the_service_has_ended,
    wait_includes_connects_in_progress,
    drain_returns_after_the_last_callback,
    drain_ends_the_service_for_later_waits,
    drain_completes_a_close_without_the_peers_fin,
    drain_counts_resets_by_either_side,
    drains_return_the_counts_since_the_first,
    serve_fails_when_a_listener_cannot_be_watched,
    threads_inherit_the_signal_mask,
    send_is_retried_when_the_kernel_lacks_memory,
    connection_after_its_close_is_always_rejected,
    server_is_used_from_the_start_of_its_service,
    server_token_can_be_set_after_its_service_ended,
    push_to_connections_that_close_reaches_no_other_client,
    #[cfg(feature = "datagram")] {
        serve_leaves_the_server_usable_without_threads,
        serve_leaves_the_server_usable_with_too_few_threads,
        stack_size_applies_in_every_mode,
        threads_ignore_pthread_cancel,
        datagram_socket_is_used_by_its_service,
        datagram_service_continues_without_a_socket_that_has_too_few_threads,
        stack_size_out_of_range_is_rejected,
        datagram_service_rejects_options_for_connections,
    }
];

/// A serving mode for connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Threads,
    Pool,
    Events,
}

const WAYS: [Way; 3] = [Way::Threads, Way::Pool, Way::Events];

/// Serves connections. `each` runs in a thread of the service before each message is echoed.
fn serve<A: Api>(
    server: &A::Server,
    way: Way,
    options: &[Serve],
    each: impl Fn() + Send + Sync + 'static,
) -> Outcome<A::Service> {
    let mut options = options.to_vec();
    match way {
        Way::Threads => server.serve(&options, Box::new(echo::<A>(each))),
        Way::Pool => {
            options.push(Serve::Threads(4));
            server.serve(&options, Box::new(echo::<A>(each)))
        }
        Way::Events => {
            let on = On::<A> {
                data: Some(Box::new(move |c, data| {
                    each();
                    let _ = c.send(data);
                })),
                ..On::default()
            };
            server.serve_events(&options, on)
        }
    }
}

fn echo<A: Api>(each: impl Fn()) -> impl Fn(&A::Client) {
    move |client| {
        let mut buf = [0; 64];
        while let Ok(n @ 1..) = client.read(&mut buf) {
            each();
            let _ = client.write_all(&buf[..n]);
        }
    }
}

fn connect(endpoint: &str) -> TcpStream {
    let stream = TcpStream::connect(endpoint).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream
}

/// Sends one message and reads its echo, which shows that the service works.
fn is_echoed(mut stream: &TcpStream) {
    stream.write_all(b"hello").unwrap();
    let mut got = [0; 5];
    stream.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"hello");
}

/// Runs `wait` in a thread, and `meanwhile` while that thread sleeps in the kernel. Returns the
/// number of wake-ups. `wait` returns after `end`.
fn woken(wait: impl FnOnce() + Send, meanwhile: impl FnOnce(), end: impl FnOnce()) -> u64 {
    thread::scope(|scope| {
        let (tell, told) = channel();
        scope.spawn(move || {
            tell.send(watch::thread_id()).unwrap();
            wait();
        });
        let waiter = told.recv().unwrap();
        watch::await_blocked(waiter, libc::SYS_futex);
        let before = watch::switches(waiter);
        meanwhile();
        let times = watch::switches(waiter) - before;
        end();
        times
    })
}

/// Checks that `woken` returns zero. On a busy machine the thread may first sleep because another thread
/// holds a lock, so that it is woken once before its wait. The check counts wake-ups as milliseconds.
fn never_woken(woken: impl Fn() -> u64) {
    promptly(Duration::ZERO, || Duration::from_millis(woken()));
}

/// V1, V2: connections that open and close do not wake a thread that waits for the end of
/// accepting, as the main thread of most programs does.
fn wait_stopped_is_not_woken_by_connections<A: Api>() {
    for way in WAYS {
        never_woken(|| {
            let server = A::listen("127.0.0.1:0", &[]).unwrap();
            let service = serve::<A>(&server, way, &[], || ()).unwrap();
            let cycles = || {
                for n in 1..=50 {
                    is_echoed(&connect(&server.endpoint()));
                    eventually("the connection is closed", || service.stats().closed == n);
                }
            };
            woken(|| service.wait_stopped(INFINITE).unwrap(), cycles, || service.stop())
        });
    }
}

/// V5: the last closed connection wakes a thread in wait.
fn wait_is_woken_by_the_last_connection_only<A: Api>() {
    process::in_process(
        &test_name!(A, "wait_is_woken_by_the_last_connection_only"),
        Duration::from_secs(25),
        || {
            for way in WAYS {
                never_woken(|| woken_before_the_last::<A>(way));
            }
        },
    );
}

/// How often a thread in wait is woken before the last connection closes.
fn woken_before_the_last<A: Api>(way: Way) -> u64 {
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    let service = serve::<A>(&server, way, &[], || ()).unwrap();
    let mut clients: Vec<_> = (0..4).map(|_| connect(&server.endpoint())).collect();
    clients.iter().for_each(is_echoed);
    service.stop();
    if way != Way::Events {
        // The accepting workers have ended, which also wakes a waiting thread.
        eventually("workers have ended", || watch::count_threads("keepsock-serve") == 4);
    }
    let last = clients.pop().unwrap();
    let all_but_one = || {
        drop(clients);
        eventually("all other connections are closed", || service.connections() == 1);
    };
    woken(|| assert_eq!(service.stop_and_wait(60_000).unwrap(), 0), all_but_one, || drop(last))
}

/// V1, V5: wait returns when the service has stopped, its last connection has ended and its handlers
/// have returned. Inside a handler it would wait for itself.
fn wait_returns_when_the_service_has_ended<A: Api>() {
    for way in WAYS {
        let server = A::listen("127.0.0.1:0", &[]).unwrap();
        let service = Arc::new(Mutex::new(None::<Arc<A::Service>>));
        let (inside, outcomes) = channel();
        let (inside, of_handler) = (Mutex::new(inside), service.clone());
        let each = move || {
            let service = of_handler.lock().unwrap().clone();
            let outcome = service.unwrap().wait(60_000);
            inside.lock().unwrap().send(outcome).unwrap();
        };
        let made = Arc::new(serve::<A>(&server, way, &[], each).unwrap());
        *service.lock().unwrap() = Some(made.clone());
        let client = connect(&server.endpoint());
        is_echoed(&client);
        fails(outcomes.recv().unwrap(), ErrorKind::WrongState);
        fails(made.wait(0), ErrorKind::TimedOut);
        made.stop();
        made.wait_stopped(60_000).unwrap();
        fails(made.wait(20), ErrorKind::TimedOut);
        let (outcome, _) = while_waiting(|| made.wait(INFINITE), || drop(client));
        outcome.unwrap();
        assert_eq!((made.connections(), made.wait(0)), (0, Ok(())), "{way:?}");
        service.lock().unwrap().take();
    }
}

/// V5: a service has not ended while a connect is in progress, because a connection may follow.
fn wait_includes_connects_in_progress<A: Api>() {
    let full = FullQueue::new();
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    let service = server.serve_events(&[], On::default()).unwrap();
    service.connect(&full.endpoint(), &[Opt::ConnectTimeout(4000)], 1).unwrap();
    service.stop();
    service.wait_stopped(60_000).unwrap();
    fails(service.wait(0), ErrorKind::TimedOut);
    service.wait(60_000).unwrap();
}

/// Serves connections that send data until they end, and do not react to a drain. Returns the
/// number of handlers that have returned, or of close callbacks.
fn serve_senders<A: Api>(server: &A::Server, way: Way) -> (A::Service, Arc<AtomicU64>) {
    let ended = Arc::new(AtomicU64::new(0));
    let count = ended.clone();
    let service = if way == Way::Events {
        let on = On::<A> {
            open: Some(Box::new(|c| c.send(&[0; 1 << 20]).unwrap())),
            drain: Some(Box::new(|_| ())),
            close: Some(Box::new(move |_, _| {
                count.fetch_add(1, Ordering::SeqCst);
            })),
            ..On::default()
        };
        server.serve_events(&[Serve::QueueLimit(4 << 20)], on)
    } else {
        let handler = move |client: &A::Client| {
            while client.write_all(&[0; 1 << 20]).is_ok() {}
            count.fetch_add(1, Ordering::SeqCst);
        };
        let options = if way == Way::Pool { &[Serve::Threads(40)][..] } else { &[] };
        server.serve(options, Box::new(handler))
    };
    (service.unwrap(), ended)
}

/// V5, V7: a drain returns after the handler or the last callback of each connection that it has
/// reset, so the program may free the memory that they use.
fn drain_returns_after_the_last_callback<A: Api>() {
    for way in WAYS {
        for limit in [0, 20] {
            let server = A::listen("127.0.0.1:0", &[]).unwrap();
            let (service, ended) = serve_senders::<A>(&server, way);
            let _clients: Vec<_> = (0..40).map(|_| connect(&server.endpoint())).collect();
            eventually("all connections are open", || service.connections() == 40);
            let result = service.drain(limit).unwrap();
            assert_eq!(ended.load(Ordering::SeqCst), 40, "{way:?}");
            assert_eq!((result, service.connections()), ((0, 40), 0), "{way:?}");
        }
    }
}

/// V5: after a drain has returned, a wait without a timeout finds that the service has ended.
fn drain_ends_the_service_for_later_waits<A: Api>() {
    for way in WAYS {
        for _ in 0..20 {
            let server = A::listen("127.0.0.1:0", &[]).unwrap();
            let service = serve::<A>(&server, way, &[], || ()).unwrap();
            assert_eq!(service.drain(0).unwrap(), (0, 0), "{way:?}");
            service.wait(0).unwrap();
        }
    }
}

/// V5, I3: a connection that the service has closed, and whose peer has received everything, has
/// ended in order, although the peer has not closed its side at the deadline. A peer that has not
/// received everything is reset. Both serving modes count alike.
fn drain_completes_a_close_without_the_peers_fin<A: Api>() {
    for way in WAYS {
        for len in [5, 32 << 20] {
            let reply = vec![b'r'; len];
            let server = A::listen("127.0.0.1:0", &[Opt::CloseTimeout(20_000)]).unwrap();
            let service = if way == Way::Events {
                let on = On::<A> {
                    data: Some(Box::new(move |c, _| {
                        c.send(&reply).unwrap();
                        c.close();
                    })),
                    ..On::default()
                };
                server.serve_events(&[Serve::QueueLimit(64 << 20)], on)
            } else {
                let options = if way == Way::Pool { &[Serve::Threads(2)][..] } else { &[] };
                let handler = move |client: &A::Client| {
                    client.read(&mut [0; 8]).unwrap();
                    let _ = client.write_all(&reply);
                };
                server.serve(options, Box::new(handler))
            };
            let service = service.unwrap();
            let mut client = connect(&server.endpoint());
            client.write_all(b"request").unwrap();
            let mut received = vec![0; if len > 5 { 1 } else { len }];
            client.read_exact(&mut received).unwrap();
            if len == 5 {
                assert_eq!(client.read(&mut [0; 8]).unwrap(), 0);
            }
            // The client does not close its side.
            assert_eq!(service.connections(), 1, "{way:?}");
            let result = service.drain(50).unwrap();
            let expected = if len == 5 { (1, 0) } else { (0, 1) };
            assert_eq!(result, expected, "{way:?}, {len} bytes");
            // On Windows SO_ERROR does not hold a reset.
            let is_reset = client.take_error().unwrap().is_some();
            assert!(is_reset == (len > 5) || cfg!(windows), "{way:?}");
        }
    }
}

/// V5: a connection that either side resets during a drain is counted as reset, in each mode.
fn drain_counts_resets_by_either_side<A: Api>() {
    for way in WAYS {
        for aborts in [true, false] {
            let server = A::listen("127.0.0.1:0", &[]).unwrap();
            let service = if way == Way::Events {
                let on = On::<A> {
                    open: Some(Box::new(|c| c.send(b"hello").unwrap())),
                    drain: Some(Box::new(move |c| {
                        c.send(b"bye").unwrap();
                        if aborts {
                            c.abort();
                        }
                    })),
                    ..On::default()
                };
                server.serve_events(&[], on)
            } else {
                let options = if way == Way::Pool { &[Serve::Threads(2)][..] } else { &[] };
                let handler = move |client: &A::Client| {
                    client.write_all(b"hello").unwrap();
                    fails(client.read(&mut [0; 8]), ErrorKind::Draining);
                    client.write_all(b"bye").unwrap();
                    match aborts {
                        true => client.abort(),
                        false => while client.write_all(&[0; 1 << 20]).is_ok() {},
                    }
                };
                server.serve(options, Box::new(handler))
            };
            let service = service.unwrap();
            let mut client = connect(&server.endpoint());
            client.read_exact(&mut [0; 5]).unwrap();
            let result = thread::scope(|scope| {
                let drain = scope.spawn(|| service.drain(20_000).unwrap());
                if aborts {
                    return drain.join().unwrap();
                }
                client.read_exact(&mut [0; 3]).unwrap();
                socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
                drop(client);
                drain.join().unwrap()
            });
            assert_eq!(result, (0, 1), "{way:?}, aborts: {aborts}");
        }
    }
}

/// V5: each drain, also one of several at the same time, returns the counts since the first.
fn drains_return_the_counts_since_the_first<A: Api>() {
    for way in WAYS {
        let server = A::listen("127.0.0.1:0", &[]).unwrap();
        let service = serve::<A>(&server, way, &[], || ()).unwrap();
        let clients: Vec<_> = (0..4).map(|_| connect(&server.endpoint())).collect();
        clients.iter().for_each(is_echoed);
        let results: Vec<_> = thread::scope(|scope| {
            let drains: Vec<_> =
                (0..3).map(|_| scope.spawn(|| service.drain(60_000).unwrap())).collect();
            for mut client in clients {
                assert_eq!(client.read(&mut [0; 8]).unwrap(), 0);
            }
            drains.into_iter().map(|drain| drain.join().unwrap()).collect()
        });
        assert_eq!(results, [(4, 0); 3], "{way:?}");
        assert_eq!(service.drain(0).unwrap(), (4, 0), "{way:?}");
    }
}

/// Checks that a failed serve has left the server unchanged (E2).
fn is_usable<A: Api>(server: &A::Server, way: Way) {
    let endpoint = server.endpoint();
    let waits =
        crate::support::os::unix::net::UnixStream::connect(endpoint.strip_prefix("unix:").unwrap());
    assert!(server.accept().unwrap().five_tuple().protocol != 0, "{way:?}");
    drop(waits.unwrap());
    let service = serve::<A>(server, way, &[], || ()).unwrap();
    let client = A::connect(&endpoint, &[]).unwrap();
    client.write_all(b"hello").unwrap();
    client.read_exact(&mut [0; 5]).unwrap();
    client.close().unwrap();
    service.drain(60_000).unwrap();
}

/// E2: if no thread can be started, the server still listens, and its file exists.
#[cfg(feature = "datagram")]
fn serve_leaves_the_server_usable_without_threads<A: Api>() {
    let dir = TempDir::new();
    for way in WAYS {
        let server = A::listen(&dir.endpoint("socket"), &[]).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| {
                limits::forbid(libc::SYS_clone3, None, libc::EAGAIN);
                limits::forbid(libc::SYS_clone, None, libc::EAGAIN);
                fails(serve::<A>(&server, way, &[], || ()).map(drop), ErrorKind::NoMemory);
            });
        });
        assert!(dir.path("socket").exists(), "{way:?}");
        server.set_cancel(None).unwrap();
        is_usable::<A>(&server, way);
    }
    let socket = A::Datagram::bind("127.0.0.1:0", &[]).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            limits::forbid(libc::SYS_clone3, None, libc::EAGAIN);
            limits::forbid(libc::SYS_clone, None, libc::EAGAIN);
            fails(socket.serve(2, answer()).map(drop), ErrorKind::NoMemory);
        });
    });
    socket.set_cancel(None).unwrap();
    is_answered::<A>(&socket, &[]);
}

/// E2: if only some threads can be started, they end, and none has accepted.
#[cfg(feature = "datagram")]
fn serve_leaves_the_server_usable_with_too_few_threads<A: Api>() {
    let test = test_name!(A, "serve_leaves_the_server_usable_with_too_few_threads");
    process::in_process(&test, Duration::from_secs(60), || {
        let (events, datagrams) = (Serve::Threads(4), Serve::Threads(4));
        let servers = WAYS.map(|way| (way, A::listen("127.0.0.1:0", &[]).unwrap()));
        let socket = A::Datagram::bind("127.0.0.1:0", &[]).unwrap();
        limits::limit_threads(2);
        for (way, server) in &servers[1..] {
            let waits = connect(&server.endpoint());
            let options = if *way == Way::Events { vec![events] } else { vec![] };
            fails(serve::<A>(server, *way, &options, || ()).map(drop), ErrorKind::NoMemory);
            // pthread_join(3) returns shortly before /proc removes the thread.
            eventually("no thread is left", || {
                ["keepsock-serve", "keepsock-events"].map(watch::count_threads) == [0, 0]
            });
            let accepted = server.accept().unwrap();
            (&waits).write_all(b"x").unwrap();
            assert_eq!(accepted.read(&mut [0; 8]).unwrap(), 1, "{way:?}");
        }
        fails(socket.serve_with(&[datagrams], answer()).map(drop), ErrorKind::NoMemory);
        is_answered::<A>(&socket, &[]);
    });
}

/// D1, E2: if only some threads of an added socket can be started, none receives on it. The service
/// continues without the socket.
#[cfg(feature = "datagram")]
fn datagram_service_continues_without_a_socket_that_has_too_few_threads<A: Api>() {
    let test =
        test_name!(A, "datagram_service_continues_without_a_socket_that_has_too_few_threads");
    process::in_process(&test, Duration::from_secs(60), || {
        let bind = || A::Datagram::bind("127.0.0.1:0", &[Opt::ReadTimeout(60_000)]).unwrap();
        let (first, second, client) = (bind(), bind(), bind());
        let service = first.serve_with(&[Serve::Threads(4)], answer()).unwrap();
        limits::limit_threads(2);
        fails(second.add_to(&service), ErrorKind::NoMemory);
        second.set_cancel(None).unwrap();
        client.send_to_endpoint(b"hello", &second.endpoint()).unwrap();
        assert_eq!(second.recv(8).unwrap().bytes, b"hello");
        client.send_to_endpoint(b"hello", &first.endpoint()).unwrap();
        assert_eq!(client.recv(8).unwrap().bytes, b"hello");
        service.stop();
        service.wait(60_000).unwrap();
    });
}

/// E2: if the poller rejects a listener, serve fails and does not start a service without accepts.
/// The server remains usable.
fn serve_fails_when_a_listener_cannot_be_watched<A: Api>() {
    let dir = TempDir::new();
    let server = A::listen(&dir.endpoint("socket"), &[]).unwrap();
    let listener = server.fd().unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            limits::forbid_with(
                libc::SYS_epoll_ctl,
                Some((2, listener as libc::c_int)),
                libc::ENOSPC,
            );
            let failure = serve::<A>(&server, Way::Events, &[], || ()).map(drop).unwrap_err();
            assert_eq!(failure.os_error, libc::ENOSPC, "{failure:?}");
            assert_eq!(&*failure.operation, "serve");
        });
    });
    is_usable::<A>(&server, Way::Events);
}

/// A handler that replies to each datagram.
#[cfg(feature = "datagram")]
fn answer() -> OnDatagram {
    Box::new(|reply, got| reply(&got.bytes).unwrap())
}

#[cfg(feature = "datagram")]
fn is_answered<A: Api>(socket: &A::Datagram, options: &[Serve]) {
    let service = socket.serve_with(options, answer()).unwrap();
    let client = A::Datagram::connect(&socket.endpoint(), &[Opt::ReadTimeout(60_000)]).unwrap();
    client.send(b"hello").unwrap();
    assert_eq!(client.recv(8).unwrap().bytes, b"hello");
    drop(service);
}

const KIB: usize = 1024;

/// Uses at least `size` bytes of the stack.
#[inline(never)]
fn use_stack(kib: usize) -> u8 {
    let part = std::hint::black_box([kib as u8; KIB]);
    if kib > 0 { part[kib % KIB] ^ use_stack(kib - 1) } else { part[0] }
}

/// V2: handlers have the configured stack in each mode: more than the default, and the minimum.
#[cfg(feature = "datagram")]
fn stack_size_applies_in_every_mode<A: Api>() {
    for (size, used) in [(64 * KIB, 0), (16 * KIB * KIB, 4 * KIB)] {
        let options = [Serve::Stack(size)];
        let each = move || {
            use_stack(used);
        };
        for way in WAYS {
            let server = A::listen("127.0.0.1:0", &[]).unwrap();
            let service = serve::<A>(&server, way, &options, each).unwrap();
            is_echoed(&connect(&server.endpoint()));
            service.drain(60_000).unwrap();
        }
        let socket = A::Datagram::bind("127.0.0.1:0", &[]).unwrap();
        is_answered::<A>(&socket, &options);
    }
}

/// Checks that a socket which a service uses keeps its token and its descriptor.
fn is_used(what: &str, results: [Outcome<()>; 3]) {
    for result in results {
        let failure = fails(result, ErrorKind::WrongState);
        assert!(failure.message.contains("a service uses the"), "{what}: {failure:?}");
    }
}

/// T4, T2: a service uses the server from the moment that serve returns, before its threads run. Its
/// descriptor cannot be released, and its token cannot be set.
fn server_is_used_from_the_start_of_its_service<A: Api>() {
    let (first, second) = (A::token(), A::token());
    for way in WAYS {
        for options in [&[][..], &[Opt::Cancel(&first)]] {
            // The threads of a service start at different times.
            for _ in 0..20 {
                let server = A::listen("127.0.0.1:0", options).unwrap();
                let service = serve::<A>(&server, way, &[], || ()).unwrap();
                let release = || server.release().map(drop);
                let set = |token: Option<&A::Token>| server.set_cancel(token);
                is_used("at once", [release(), set(Some(&second)), set(None)]);
                is_echoed(&connect(&server.endpoint()));
                is_used("later", [release(), set(Some(&second)), set(None)]);
                drop(service);
                fails(release(), ErrorKind::Closed);
            }
        }
    }
}

/// T2: after a token has ended a service, another token can be set, and the next service uses it.
fn server_token_can_be_set_after_its_service_ended<A: Api>() {
    for way in WAYS {
        let server = A::listen("127.0.0.1:0", &[]).unwrap();
        // The end of a service closes the server.
        let mut services = Vec::new();
        for _ in 0..5 {
            let token = A::token();
            server.set_cancel(Some(&token)).unwrap();
            let service = serve::<A>(&server, way, &[], || ()).unwrap();
            is_echoed(&connect(&server.endpoint()));
            token.fire();
            service.wait_stopped(10_000).unwrap();
            services.push(service);
        }
        // The last service has ended, so the program accepts.
        server.set_cancel(None).unwrap();
        let _client = connect(&server.endpoint());
        server.accept().unwrap();
    }
}

/// T4, T2: as for a server: a datagram service uses the socket until its threads have ended.
#[cfg(feature = "datagram")]
fn datagram_socket_is_used_by_its_service<A: Api>() {
    let token = A::token();
    for _ in 0..20 {
        let socket = A::Datagram::bind("127.0.0.1:0", &[]).unwrap();
        let release = || socket.release().map(drop);
        let set = |token: Option<&A::Token>| socket.set_cancel(token);
        set(Some(&token)).unwrap();
        let service = socket.serve(2, answer()).unwrap();
        is_used("at once", [release(), set(Some(&token)), set(None)]);
        let client = A::Datagram::connect(&socket.endpoint(), &[Opt::ReadTimeout(10_000)]).unwrap();
        client.send(b"hello").unwrap();
        client.recv(8).unwrap();
        is_used("later", [release(), set(Some(&token)), set(None)]);
        token.fire();
        service.wait(10_000).unwrap();
        token.reset();
        set(None).unwrap();
        release().unwrap();
    }
}

/// E3: pthread_cancel has no effect on a thread that runs handlers or callbacks, and the thread
/// continues to serve.
#[cfg(feature = "datagram")]
fn threads_ignore_pthread_cancel<A: Api>() {
    process::in_process(
        &test_name!(A, "threads_ignore_pthread_cancel"),
        Duration::from_secs(30),
        || {
            for way in WAYS {
                for loops in 1..=if way == Way::Events { 2 } else { 1 } {
                    let options = vec![Serve::Threads(loops); usize::from(way == Way::Events)];
                    let server = A::listen("127.0.0.1:0", &[]).unwrap();
                    let each = system::cancel_this_thread;
                    let service = serve::<A>(&server, way, &options, each).unwrap();
                    let clients: Vec<_> = (0..3).map(|_| connect(&server.endpoint())).collect();
                    (0..2).for_each(|_| clients.iter().for_each(is_echoed));
                    drop(clients);
                    service.drain(60_000).unwrap();
                }
            }
            let socket = A::Datagram::bind("127.0.0.1:0", &[]).unwrap();
            let handler: OnDatagram = Box::new(|reply, got| {
                system::cancel_this_thread();
                reply(&got.bytes).unwrap();
            });
            let _service = socket.serve(1, handler).unwrap();
            let client =
                A::Datagram::connect(&socket.endpoint(), &[Opt::ReadTimeout(60_000)]).unwrap();
            for _ in 0..2 {
                client.send(b"hello").unwrap();
                assert_eq!(client.recv(8).unwrap().bytes, b"hello");
            }
        },
    );
}

/// V2, E2: a stack size that no thread can have is rejected.
#[cfg(feature = "datagram")]
fn stack_size_out_of_range_is_rejected<A: Api>() {
    for size in [0, 1, 64 * KIB - 1, (KIB * KIB * KIB) + 1, usize::MAX] {
        for way in WAYS {
            let server = A::listen("127.0.0.1:0", &[]).unwrap();
            let outcome = serve::<A>(&server, way, &[Serve::Stack(size)], || ());
            fails(outcome.map(drop), ErrorKind::InvalidArgument);
        }
        let socket = A::Datagram::bind("127.0.0.1:0", &[]).unwrap();
        let outcome = socket.serve_with(&[Serve::Stack(size)], answer());
        fails(outcome.map(drop), ErrorKind::InvalidArgument);
    }
}

/// E2: an option without effect is rejected.
#[cfg(feature = "datagram")]
fn datagram_service_rejects_options_for_connections<A: Api>() {
    let socket = A::Datagram::bind("127.0.0.1:0", &[]).unwrap();
    for option in [
        Serve::Max(10),
        Serve::Reject,
        Serve::PerAddress(1),
        Serve::Allow("127.0.0.1"),
        Serve::Deny("127.0.0.1"),
        Serve::Framing(keepsock::Framing::Lines { max: 10 }),
        Serve::QueueLimit(1000),
        Serve::DropOldest,
        Serve::Threads(1025),
    ] {
        let outcome = socket.serve_with(&[option], answer());
        fails(outcome.map(drop), ErrorKind::InvalidArgument);
    }
    is_answered::<A>(&socket, &[Serve::Threads(2)]);
}

/// V2: the threads of a service block the signals that the caller of serve blocks, and no others.
fn threads_inherit_the_signal_mask<A: Api>() {
    for way in WAYS {
        let (tell, told) = channel();
        let tell = Mutex::new(tell);
        let server = A::listen("127.0.0.1:0", &[]).unwrap();
        let each = move || {
            let blocked = [libc::SIGUSR1, libc::SIGUSR2].map(system::is_blocked);
            tell.lock().unwrap().send(blocked).unwrap();
        };
        let service = thread::scope(|scope| {
            let serve = || {
                system::block_signal(libc::SIGUSR1, true);
                serve::<A>(&server, way, &[], each).unwrap()
            };
            scope.spawn(serve).join().unwrap()
        });
        // Also workers that other workers have started.
        let clients: Vec<_> = (0..3).map(|_| connect(&server.endpoint())).collect();
        for client in &clients {
            is_echoed(client);
            assert_eq!(told.recv().unwrap(), [true, false], "{way:?}");
        }
        drop(clients);
        service.drain(60_000).unwrap();
    }
}

/// E4, K7: a lack of kernel memory does not concern the connection. The bytes are queued, and
/// delivered once there is memory, without an event of the kernel.
fn send_is_retried_when_the_kernel_lacks_memory<A: Api>() {
    for errno in [libc::ENOBUFS, libc::ENOMEM] {
        let server = A::listen("127.0.0.1:0", &[]).unwrap();
        let (tell, told) = channel();
        let tell = Mutex::new(tell);
        let room = Arc::new(Mutex::new(0));
        let emptied = room.clone();
        let on = On::<A> {
            open: Some(Box::new(move |c: &A::Connection| {
                drop(tell.lock().unwrap().send(c.clone()))
            })),
            writable: Some(Box::new(move |_| *emptied.lock().unwrap() += 1)),
            ..On::default()
        };
        let service = server.serve_events(&[Serve::QueueLimit(64 << 20)], on).unwrap();
        let mut client = connect(&server.endpoint());
        let connection = told.recv().unwrap();
        // So many bytes that some are queued: from now on the kernel reports room only after it had
        // none.
        connection.send(&vec![b'a'; 16 << 20]).unwrap();
        assert!(connection.queued() > 0);
        client.read_exact(&mut vec![0; 16 << 20]).unwrap();
        eventually("nothing waits", || *room.lock().unwrap() == 1);
        thread::scope(|scope| {
            scope.spawn(|| {
                limits::forbid(libc::SYS_sendto, None, errno);
                limits::forbid(libc::SYS_sendmsg, None, errno);
                connection.send(b"late").unwrap();
            });
        });
        let mut got = [0; 4];
        client.read_exact(&mut got).unwrap();
        assert_eq!((&got, connection.close_reason()), (b"late", None));
        drop(client);
        service.drain(60_000).unwrap();
    }
}

/// Callbacks that return each connection when it opens, and count the closed ones.
fn handing_out<A: Api>() -> (On<A>, Receiver<A::Connection>, Arc<AtomicU64>) {
    let (tell, told) = channel();
    let tell = Mutex::new(tell);
    let closed = Arc::new(AtomicU64::new(0));
    let count = closed.clone();
    let on = On::<A> {
        open: Some(Box::new(move |c: &A::Connection| {
            tell.lock().unwrap().send(c.clone()).unwrap();
        })),
        close: Some(Box::new(move |_, _| {
            count.fetch_add(1, Ordering::SeqCst);
        })),
        ..On::default()
    };
    (on, told, closed)
}

/// Checks that each call on a closed connection is rejected, or has no effect.
fn is_rejected<A: Api>(connection: &A::Connection) {
    let refused = |outcome: Outcome<()>| {
        let failure = outcome.unwrap_err();
        assert!(failure.is(ErrorKind::Closed) || failure.is(ErrorKind::WrongState), "{failure:?}");
    };
    refused(connection.send(b"secret"));
    refused(connection.join("group"));
    refused(connection.five_tuple().map(drop));
    refused(connection.stats().map(drop));
    refused(connection.keepalive().map(drop));
    refused(connection.peer_credentials().map(drop));
    connection.set_data(7);
    assert_eq!((connection.data(), connection.queued(), connection.close_reason()), (0, 0, None));
    assert!(!connection.is_open());
    connection.pause();
    connection.resume();
    connection.shutdown_write();
    connection.close();
    connection.abort();
    let _ = connection.set_timer(0);
}

/// V9: a closed connection is always rejected: while others use its entry, after the service was
/// freed, and while another service uses its memory. None of them is affected.
fn connection_after_its_close_is_always_rejected<A: Api>() {
    let mut stale: Vec<A::Connection> = Vec::new();
    for _ in 0..3 {
        let server = A::listen("127.0.0.1:0", &[]).unwrap();
        let (on, opened, closed) = handing_out::<A>();
        let service = server.serve_events(&[], on).unwrap();
        for n in 1..=20 {
            let mut client = connect(&server.endpoint());
            let connection = opened.recv_timeout(Duration::from_secs(60)).unwrap();
            connection.set_data(5);
            stale.iter().for_each(is_rejected::<A>);
            // None of these calls affected this connection.
            assert_eq!((connection.data(), connection.close_reason()), (5, None));
            assert!(connection.is_open());
            connection.send(b"news").unwrap();
            let mut got = [0; 4];
            client.read_exact(&mut got).unwrap();
            assert_eq!(&got, b"news");
            drop(client);
            eventually("the close callback has run", || closed.load(Ordering::SeqCst) == n);
            eventually("the connection is closed", || service.connections() == 0);
            is_rejected::<A>(&connection);
            stale.push(connection);
        }
        drop(service);
        stale.iter().for_each(is_rejected::<A>);
    }
}

/// V9, T3: threads push to connections while these close and others reuse their entries. The data
/// reaches the intended clients only.
fn push_to_connections_that_close_reaches_no_other_client<A: Api>() {
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    let (on, opened, _) = handing_out::<A>();
    let service = server.serve_events(&[Serve::QueueLimit(16 << 20)], on).unwrap();
    let current: Mutex<Vec<(u64, A::Connection)>> = Mutex::default();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::SeqCst) {
                    let all = current.lock().unwrap().clone();
                    for (number, connection) in all {
                        let _ = connection.send(&number.to_le_bytes());
                    }
                }
            });
        }
        for number in 0..300 {
            let mut client = connect(&server.endpoint());
            let connection = opened.recv_timeout(Duration::from_secs(60)).unwrap();
            let mut all = current.lock().unwrap();
            all.push((number, connection));
            if all.len() > 8 {
                all.remove(0);
            }
            drop(all);
            for _ in 0..4 {
                let mut got = [0; 8];
                client.read_exact(&mut got).unwrap();
                assert_eq!(u64::from_le_bytes(got), number);
            }
        }
        stop.store(true, Ordering::SeqCst);
    });
    service.drain(60_000).unwrap();
}

/// The payload of a panic, whose drop also panics.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        std::panic::panic_any(Bomb);
    }
}

/// V7: a panic whose payload panics in its drop ends its connection only, in each mode, and so does
/// user data whose drop panics (Rust only).
#[cfg(feature = "datagram")]
#[test]
fn panic_whose_payload_panics_when_dropped_ends_one_connection() {
    let _limit = Limit::new("panic_whose_payload_panics_when_dropped_ends_one_connection");
    for way in WAYS {
        let server = keepsock::ServerSocket::listen("127.0.0.1:0").unwrap();
        let explodes = AtomicBool::new(true);
        let each = move || {
            if explodes.swap(false, Ordering::SeqCst) {
                std::panic::panic_any(Bomb);
            }
        };
        let options = [Serve::Max(1)];
        let service = serve::<RustApi>(&server, way, &options, each).unwrap();
        let mut one = connect(&server.endpoint().to_string());
        one.write_all(b"x").unwrap();
        let ended = one.read(&mut [0; 8]).unwrap_err().kind();
        assert_eq!(ended, std::io::ErrorKind::ConnectionReset, "{way:?}");
        is_echoed(&connect(&server.endpoint().to_string()));
        service.drain(Duration::from_secs(60)).unwrap();
    }
    let socket = keepsock::DatagramSocket::bind("127.0.0.1:0").unwrap();
    let service = socket
        .serve(&keepsock::ServeOptions::new(), |socket, datagram, bytes| {
            if bytes == b"panic, please" {
                std::panic::panic_any(Bomb);
            }
            socket.reply(datagram, bytes).unwrap();
        })
        .unwrap();
    let client = keepsock::DatagramSocket::connect(socket.endpoint()).unwrap();
    client.set_read_timeout(Duration::from_secs(60)).unwrap();
    client.send(b"panic, please").unwrap();
    client.send(b"alive?").unwrap();
    assert_eq!(client.recv(&mut [0; 32]).unwrap().len, 6);
    drop(service);
}

/// V7: user data whose drop panics ends its own connection only (Rust only).
#[test]
fn data_whose_drop_panics_ends_one_connection() {
    let _limit = Limit::new("data_whose_drop_panics_ends_one_connection");
    let server = keepsock::ServerSocket::listen("127.0.0.1:0").unwrap();
    let service = server
        .serve_events(&keepsock::ServeOptions::new(), |c: &keepsock::Connection, data: &[u8]| {
            c.set_data(Arc::new(Bomb));
            let _ = c.send(data);
        })
        .unwrap();
    for n in 1..=3 {
        is_echoed(&connect(&server.endpoint().to_string()));
        eventually("the connection is closed", || service.stats().closed == n);
    }
}
