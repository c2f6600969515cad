//! L2: one server socket that listens on several endpoints.

use std::collections::HashMap;
use std::net::TcpListener;
use std::sync::atomic::{AtomicI32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support;
use crate::support::libc;
use crate::support::{
    Api, Client, INFINITE, Opt, Outcome, Server, TempDir, Token, eventually, fails, promptly,
    system, timed,
};
#[cfg(feature = "serve")]
use crate::support::{Connection, On, Serve, Service};
use keepsock::ErrorKind;

both_apis![
    listen_all_accepts_tcp_and_unix,
    listen_all_with_one_endpoint_waits_in_the_kernel,
    listen_all_is_atomic_on_failure,
    busy_listener_does_not_starve_others,
    accept_in_many_threads_loses_no_connection,
    close_ends_the_accepts_of_all_threads,
    cancel_ends_the_accepts_of_all_threads,
    each_accept_has_its_own_timeout,
    connection_wakes_one_waiting_thread,
    nonblocking_accept_polls_every_listener,
    release_of_one_of_several_listeners_fails,
    #[cfg(feature = "diag")] {
        listen_all_with_invalid_list_fails,
    }
    #[cfg(feature = "serve")] {
        serve_accepts_from_all_endpoints,
        rejections_on_all_endpoints_are_counted,
        serve_events_accepts_from_all_endpoints,
    }
];

/// A server on IPv4, IPv6 and a Unix socket.
struct Three<A: Api> {
    server: A::Server,
    dir: TempDir,
}

fn three<A: Api>(options: &[Opt<'_, A>]) -> Three<A> {
    let dir = TempDir::new();
    let endpoints = ["127.0.0.1:0", "[::1]:0", &dir.endpoint("s")];
    Three { server: A::listen_all(&endpoints, options).unwrap(), dir }
}

fn connect<A: Api>(endpoint: &str) -> A::Client {
    A::connect(endpoint, &[Opt::CloseTimeout(0)]).unwrap()
}

/// Returns the index of the endpoint at which an accepted connection arrived.
fn came_to<A: Api>(server: &A::Server, accepted: &A::Client) -> usize {
    let (host, port) = accepted.five_tuple().local;
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    let local = if port == 0 { host } else { format!("{host}:{port}") };
    let endpoints = server.endpoints();
    let found = endpoints.iter().position(|e| e.trim_start_matches("unix:") == local);
    found.unwrap_or_else(|| panic!("{local} is not one of {endpoints:?}"))
}

/// Makes the same call in several threads, and runs `then` when all of them wait.
fn while_all_wait<T: Send>(
    threads: usize,
    call: impl Fn() -> T + Sync,
    meanwhile: impl FnOnce(),
) -> Vec<(T, Duration)> {
    let tids: Vec<_> = (0..threads).map(|_| AtomicI32::new(0)).collect();
    thread::scope(|scope| {
        let call = &call;
        let callers: Vec<_> = tids
            .iter()
            .map(|tid| {
                scope.spawn(move || {
                    tid.store(system::thread_id(), Ordering::Release);
                    (call(), Instant::now())
                })
            })
            .collect();
        eventually("all calls wait", || {
            tids.iter().all(|tid| {
                let tid = tid.load(Ordering::Acquire);
                tid != 0 && system::waits_for_a_socket(tid)
            })
        });
        let start = Instant::now();
        meanwhile();
        let outcomes = callers.into_iter().map(|caller| caller.join().unwrap());
        outcomes.map(|(outcome, end)| (outcome, end.saturating_duration_since(start))).collect()
    })
}

/// L2, S2: one server accepts TCP of both families and a Unix socket. Each connection has the
/// address of its own endpoint.
fn listen_all_accepts_tcp_and_unix<A: Api>() {
    let Three { server, dir } = three::<A>(&[Opt::CloseTimeout(0)]);
    let endpoints = server.endpoints();
    assert_eq!(endpoints.len(), 3);
    assert_eq!(endpoints[0], format!("127.0.0.1:{}", server.port()));
    assert!(endpoints[1].starts_with("[::1]:") && !endpoints[1].ends_with(":0"));
    assert_eq!(endpoints[2], dir.endpoint("s"));
    assert_eq!(server.endpoint(), endpoints[0]);
    assert!(!server.is_closed());
    for at in [0, 1, 2, 1, 0, 2, 2] {
        let client = connect::<A>(&endpoints[at]);
        let accepted = server.accept().unwrap();
        assert_eq!(came_to::<A>(&server, &accepted), at);
        assert_eq!(accepted.five_tuple().protocol, client.five_tuple().protocol);
        if at < 2 {
            assert_eq!(accepted.five_tuple().remote, client.five_tuple().local);
        }
        assert!(system::is_cloexec(accepted.fd().unwrap()));
        assert!(!system::is_nonblocking(accepted.fd().unwrap()));
        client.write_all(b"hello\n").unwrap();
        assert_eq!(accepted.read_line(64).unwrap(), "hello");
    }
    assert_eq!(server.stats().accepted, 7);
    server.close();
    assert!(server.is_closed());
    assert!(!dir.path("s").exists(), "the server has removed its file");
    for endpoint in &endpoints {
        A::connect(endpoint, &[]).err().expect("nobody listens");
    }
    fails(server.accept(), ErrorKind::Closed);
}

/// L2: a list with one endpoint behaves like a single endpoint.
fn listen_all_with_one_endpoint_waits_in_the_kernel<A: Api>() {
    let server = A::listen_all(&["*:0"], &[]).unwrap();
    assert_eq!(server.endpoints(), [format!("*:{}", server.port())]);
    assert!(!system::is_nonblocking(server.fd().unwrap()), "accept waits in the kernel");
    let _client = connect::<A>(&format!("127.0.0.1:{}", server.port()));
    server.accept().unwrap();
    server.release().unwrap();
}

/// L2, L5: the error names the endpoint that fails, and the other listeners are closed again.
fn listen_all_is_atomic_on_failure<A: Api>() {
    let dir = TempDir::new();
    let first = format!("{}:{}", A::own_address(29), support::own_port());
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let _live = A::listen(&dir.endpoint("live"), &[]).unwrap();
    for (conflict, kind) in [
        (taken.clone(), ErrorKind::AddressInUse),
        (dir.endpoint("live"), ErrorKind::AddressInUse),
        ("192.0.2.1:0".to_owned(), ErrorKind::AddressNotAvailable),
        (dir.endpoint("none/s"), ErrorKind::NotFound),
        // The same endpoint twice conflicts with itself.
        (first.clone(), ErrorKind::AddressInUse),
    ] {
        let outcome = A::listen_all(&[&first, &dir.endpoint("s"), &conflict, "127.0.0.1:0"], &[]);
        let failure = fails(outcome, kind);
        assert_eq!(failure.endpoint, conflict);
        assert_eq!(&*failure.operation, "listen");
        assert!(!dir.path("s").exists(), "the file exists");
        A::listen(&first, &[]).expect("the first listener is closed again");
    }
    assert!(dir.path("live").exists());
}

/// L2, E1: an empty list, an invalid endpoint, and an option that does not fit one endpoint are
/// rejected.
#[cfg(feature = "diag")]
fn listen_all_with_invalid_list_fails<A: Api>() {
    let dir = TempDir::new();
    let unix = dir.endpoint("s");
    let failure = fails(A::listen_all(&[], &[]), ErrorKind::InvalidArgument);
    assert_eq!(
        &*failure.message,
        "listen: invalid argument: the list of endpoints is empty: name at least one"
    );
    let failure = fails(A::listen_all(&[&unix, "127.0.0.1:"], &[]), ErrorKind::InvalidEndpoint);
    assert_eq!(&*failure.operation, "listen");
    assert!(failure.message.contains("127.0.0.1:"), "{failure:?}");
    let options = [Opt::SaveSyn(true)];
    let failure =
        fails(A::listen_all(&["127.0.0.1:0", &unix], &options), ErrorKind::InvalidArgument);
    assert_eq!(failure.endpoint, unix);
    assert!(!dir.path("s").exists());
}

/// L2: a client of one endpoint is accepted although the others always have clients, in each accept
/// mode.
fn busy_listener_does_not_starve_others<A: Api>() {
    for (timeout, nonblocking) in [(false, false), (true, false), (false, true)] {
        let Three { server, dir: _dir } = three::<A>(&[Opt::CloseTimeout(0)]);
        if timeout {
            server.set_accept_timeout(60_000).unwrap();
        }
        server.set_nonblocking(nonblocking).unwrap();
        let endpoints = server.endpoints();
        for busy in 0..3 {
            let mut clients: Vec<_> = (0..20).map(|_| connect::<A>(&endpoints[busy])).collect();
            let others = [(busy + 1) % 3, (busy + 2) % 3];
            clients.extend(others.map(|at| connect::<A>(&endpoints[at])));
            let next = || came_to::<A>(&server, &server.accept().unwrap());
            let mut first: Vec<_> = (0..3).map(|_| next()).collect();
            first.sort_unstable();
            assert_eq!(first, [0, 1, 2]);
            // Two busy listeners alternate.
            clients.extend((0..20).map(|_| connect::<A>(&endpoints[others[0]])));
            let mut count = [0; 3];
            (0..20).for_each(|_| count[next()] += 1);
            assert_eq!((count[busy], count[others[0]]), (10, 10));
            (0..19).for_each(|_| {
                next();
            });
        }
    }
}

/// L2, T1: threads that accept concurrently lose no connection and get none twice.
fn accept_in_many_threads_loses_no_connection<A: Api>() {
    const EACH: usize = 60;
    let Three { server, dir: _dir } = three::<A>(&[Opt::CloseTimeout(0)]);
    let endpoints = server.endpoints();
    let count = thread::scope(|scope| {
        let accepting: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut count = HashMap::new();
                    loop {
                        match server.accept() {
                            Ok(client) => {
                                *count.entry(came_to::<A>(&server, &client)).or_insert(0) += 1;
                                client.write_all(b"hello\n").unwrap();
                            }
                            Err(failure) => {
                                assert!(failure.is(ErrorKind::Closed), "{failure:?}");
                                return count;
                            }
                        }
                    }
                })
            })
            .collect();
        let connecting: Vec<_> = endpoints
            .iter()
            .map(|endpoint| {
                scope.spawn(move || {
                    for _ in 0..EACH {
                        assert_eq!(connect::<A>(endpoint).read_line(64).unwrap(), "hello");
                    }
                })
            })
            .collect();
        connecting.into_iter().for_each(|thread| thread.join().unwrap());
        server.close();
        let mut all = HashMap::new();
        for thread in accepting {
            for (at, count) in thread.join().unwrap() {
                *all.entry(at).or_insert(0) += count;
            }
        }
        all
    });
    assert_eq!(count, HashMap::from([(0, EACH), (1, EACH), (2, EACH)]));
    assert_eq!(server.stats().accepted as usize, 3 * EACH);
}

/// L2, T3: a close wakes the thread that polls and the threads that wait for it.
fn close_ends_the_accepts_of_all_threads<A: Api>() {
    promptly(Duration::from_millis(50), || {
        let Three { server, dir } = three::<A>(&[]);
        let outcomes = while_all_wait(4, || server.accept().map(drop), || server.close());
        assert!(!dir.path("s").exists());
        longest(outcomes, ErrorKind::Closed)
    });
}

/// Checks that all calls failed with one error, and returns the longest time.
fn longest(outcomes: Vec<(Outcome<()>, Duration)>, kind: ErrorKind) -> Duration {
    let times = outcomes.into_iter().map(|(outcome, took)| {
        fails(outcome, kind);
        took
    });
    times.max().unwrap()
}

/// L2, T2: a token ends all accepts within 50 ms, also of threads that wait behind an accept
/// without a token. The server remains usable.
fn cancel_ends_the_accepts_of_all_threads<A: Api>() {
    let (token, other) = (A::token(), A::token());
    let Three { server, dir: _dir } = three::<A>(&[Opt::Cancel(&token), Opt::CloseTimeout(0)]);
    promptly(Duration::from_millis(50), || {
        let outcomes = while_all_wait(3, || server.accept().map(drop), || token.fire());
        token.reset();
        longest(outcomes, ErrorKind::Cancelled)
    });
    promptly(Duration::from_millis(50), || {
        server.set_cancel(None).unwrap();
        thread::scope(|scope| {
            // This thread polls without a token.
            let without = waiting_in(scope, || server.accept());
            server.set_cancel(Some(&other)).unwrap();
            let outcomes = while_all_wait(2, || server.accept().map(drop), || other.fire());
            other.reset();
            let _client = connect::<A>(&server.endpoint());
            without.join().unwrap().unwrap();
            longest(outcomes, ErrorKind::Cancelled)
        })
    });
}

/// Makes a call in another thread, and returns when it waits.
fn waiting_in<'scope, T: Send + 'scope>(
    scope: &'scope thread::Scope<'scope, '_>,
    call: impl FnOnce() -> T + Send + 'scope,
) -> thread::ScopedJoinHandle<'scope, T> {
    let (send, tid) = std::sync::mpsc::channel();
    let caller = scope.spawn(move || {
        send.send(system::thread_id()).unwrap();
        call()
    });
    let tid = tid.recv().unwrap();
    eventually("the call waits", || system::waits_for_a_socket(tid));
    caller
}

/// L2: the timeout of an accept applies, whether it polls or waits for another accept.
fn each_accept_has_its_own_timeout<A: Api>() {
    let Three { server, dir: _dir } = three::<A>(&[]);
    server.set_accept_timeout(60).unwrap();
    promptly(Duration::from_millis(110), || {
        thread::scope(|scope| {
            let accept = || timed(|| server.accept().map(drop));
            let threads: Vec<_> = (0..3).map(|_| scope.spawn(accept)).collect();
            let outcomes = threads.into_iter().map(|thread| thread.join().unwrap());
            let outcomes: Vec<_> = outcomes.collect();
            assert!(outcomes.iter().all(|(_, took)| *took >= Duration::from_millis(60)));
            longest(outcomes, ErrorKind::TimedOut)
        })
    });
    let failure = fails(server.accept(), ErrorKind::TimedOut);
    assert_eq!(*failure.message, *format!("accept {}: timed out", server.endpoint()));
    // The same while an accept without a timeout polls.
    server.set_accept_timeout(INFINITE).unwrap();
    thread::scope(|scope| {
        let unlimited = waiting_in(scope, || server.accept());
        server.set_accept_timeout(60).unwrap();
        promptly(Duration::from_millis(110), || {
            let (outcome, took) = timed(|| server.accept());
            fails(outcome, ErrorKind::TimedOut);
            took
        });
        let _client = connect::<A>(&server.endpoint());
        unlimited.join().unwrap().unwrap();
    });
}

/// L2, V1: a connection wakes one of the waiting threads.
fn connection_wakes_one_waiting_thread<A: Api>() {
    const THREADS: usize = 4;
    let Three { server, dir: _dir } = three::<A>(&[Opt::CloseTimeout(0)]);
    let tids = std::sync::Mutex::new(Vec::new());
    let (send, accepted) = std::sync::mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..THREADS {
            let send = send.clone();
            scope.spawn(|| {
                tids.lock().unwrap().push(system::thread_id());
                let send = send;
                while let Ok(client) = server.accept() {
                    send.send(client).unwrap();
                }
            });
        }
        let wakes = || {
            eventually("all wait", || {
                let tids = tids.lock().unwrap();
                tids.len() == THREADS && tids.iter().all(|tid| system::waits_for_a_socket(*tid))
            });
            tids.lock().unwrap().iter().map(|tid| switches(*tid)).sum::<u64>()
        };
        let _close = support::OnDrop(|| server.close());
        const ROUNDS: u64 = 30;
        // One thread polls, and one is next. On a busy machine they may also wait for each other's
        // locks. As many milliseconds as wake-ups.
        promptly(Duration::from_millis(ROUNDS * 5 / 2), || {
            let before = wakes();
            for round in 0..ROUNDS as usize {
                let _client = connect::<A>(&server.endpoints()[round % 3]);
                accepted.recv().unwrap();
                wakes();
            }
            Duration::from_millis(wakes() - before)
        });
    });
}

/// The number of times that a thread of this process has slept.
fn switches(thread: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/self/task/{thread}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    line.unwrap().trim().parse().unwrap()
}

/// L2, T4: non-blocking mode checks all listeners and waits for none.
fn nonblocking_accept_polls_every_listener<A: Api>() {
    let Three { server, dir: _dir } = three::<A>(&[Opt::CloseTimeout(0)]);
    server.set_nonblocking(true).unwrap();
    for at in [2, 0, 1, 1] {
        fails(server.accept(), ErrorKind::WouldBlock);
        let _client = connect::<A>(&server.endpoints()[at]);
        assert_eq!(came_to::<A>(&server, &server.accept().unwrap()), at);
    }
    server.set_nonblocking(false).unwrap();
    let (accepted, _) =
        support::while_waiting(|| server.accept(), || drop(connect::<A>(&server.endpoints()[2])));
    assert_eq!(came_to::<A>(&server, &accepted.unwrap()), 2);
}

/// L2, L7, T4: all descriptors can be borrowed. A release of a single descriptor fails.
fn release_of_one_of_several_listeners_fails<A: Api>() {
    let Three { server, dir } = three::<A>(&[]);
    let failure = fails(server.release(), ErrorKind::WrongState);
    assert!(failure.message.contains("3 endpoints"), "{failure:?}");
    let borrowed: Vec<_> = (0..3).map(|index| server.fd_at(index).unwrap()).collect();
    assert_eq!(server.fd().unwrap(), borrowed[0]);
    for (fd, family) in borrowed.iter().zip([libc::AF_INET, libc::AF_INET6, libc::AF_UNIX]) {
        assert_eq!(system::option(*fd, libc::SOL_SOCKET, libc::SO_DOMAIN), family);
        assert!(system::is_nonblocking(*fd) && system::is_cloexec(*fd));
    }
    fails(server.fd_at(3), ErrorKind::NotFound);
    let _client = connect::<A>(&dir.endpoint("s"));
    server.accept().unwrap();
    server.close();
    fails(server.release(), ErrorKind::Closed);
    fails(server.fd(), ErrorKind::Closed);
    fails(server.fd_at(2), ErrorKind::Closed);
}

/// L2, V1, V3, V5: serve accepts the connections of all endpoints.
#[cfg(feature = "serve")]
fn serve_accepts_from_all_endpoints<A: Api>() {
    const EACH: usize = 5;
    let Three { server, dir } = three::<A>(&[Opt::CloseTimeout(20_000)]);
    let echo = |client: &A::Client| {
        while let Ok(line) = client.read_line(64) {
            client.write_all(format!("{line}\n").as_bytes()).unwrap();
        }
    };
    let service = server.serve(&[], Box::new(echo)).unwrap();
    let clients: Vec<_> = (0..3 * EACH).map(|i| connect::<A>(&server.endpoints()[i % 3])).collect();
    for (i, client) in clients.iter().enumerate() {
        client.write_all(format!("{i}\n").as_bytes()).unwrap();
        assert_eq!(client.read_line(64).unwrap(), i.to_string());
    }
    assert_eq!(service.connections() as usize, 3 * EACH);
    assert_eq!(service.broadcast(b"news\n"), (3 * EACH as u32, 0));
    for client in &clients {
        assert_eq!(client.read_line(64).unwrap(), "news");
    }
    thread::scope(|scope| {
        let drained = scope.spawn(|| service.drain(20_000).unwrap());
        for client in clients {
            assert_eq!(client.read(&mut [0; 8]).unwrap(), 0);
            client.close().unwrap();
        }
        assert_eq!(drained.join().unwrap(), (3 * EACH as u32, 0));
    });
    assert!(!dir.path("s").exists());
    assert_eq!(server.stats().accepted as usize, 3 * EACH);
}

/// L2, V1: a full server rejects connections on all of its endpoints, and counts them.
#[cfg(feature = "serve")]
fn rejections_on_all_endpoints_are_counted<A: Api>() {
    let Three { server, dir: _dir } = three::<A>(&[Opt::CloseTimeout(0)]);
    let hold = |client: &A::Client| drop(client.read(&mut [0; 8]));
    let _service = server.serve(&[Serve::Max(1), Serve::Reject], Box::new(hold)).unwrap();
    let _first = connect::<A>(&server.endpoint());
    eventually("the first connection is served", || server.stats().accepted == 1);
    for (i, endpoint) in server.endpoints().iter().enumerate() {
        // The reset may arrive before connect has read its result.
        let outcome = A::connect(endpoint, &[Opt::CloseTimeout(0)]);
        let outcome = outcome.and_then(|client| client.read(&mut [0; 8]));
        assert!(outcome.is_err() || outcome == Ok(0), "{outcome:?}");
        eventually("the connection is rejected", || server.stats().rejected == i as u64 + 1);
    }
}

/// L2, V2: an event-driven service accepts TCP and Unix connections. While it is full it accepts
/// from no listener, and then from each again.
#[cfg(feature = "serve")]
fn serve_events_accepts_from_all_endpoints<A: Api>() {
    let dir = TempDir::new();
    let mut endpoints = vec!["127.0.0.1:0".to_owned(); 300];
    endpoints.push(dir.endpoint("s"));
    let endpoints: Vec<_> = endpoints.iter().map(String::as_str).collect();
    let server = A::listen_all(&endpoints, &[]).unwrap();
    let on = On::<A> { data: Some(Box::new(|c, data| drop(c.send(data)))), ..On::default() };
    let service = server.serve_events(&[Serve::Max(1)], on).unwrap();
    let endpoints = server.endpoints();
    for at in [0, 1, 255, 256, 257, 299, 300] {
        let client = connect::<A>(&endpoints[at]);
        client.write_all(b"one\n").unwrap();
        assert_eq!(client.read_line(64).unwrap(), "one", "{}", endpoints[at]);
        // The service accepts from its endpoints in any order, so only now is the order certain.
        let waits = connect::<A>(&endpoints[(at + 1) % endpoints.len()]);
        waits.write_all(b"two\n").unwrap();
        assert_eq!(service.connections(), 1);
        drop(client);
        assert_eq!(waits.read_line(64).unwrap(), "two");
        drop(waits);
        eventually("both connections are closed", || service.connections() == 0);
    }
    server.close();
    service.wait_stopped(60_000).unwrap();
}
