//! T1: several threads on one socket. T2: cancellation. T3: close while other threads are in calls.
//! T4: non-blocking mode, and descriptors that are borrowed, released and adopted.

use crate::support::libc;
use crate::support::os::{AsRawFd, OwnedFd};
use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support;
use crate::support::{
    Api, Client, FullQueue, MORE_THAN_FITS, Opt, Outcome, Pair, Server, TRANSPORTS, TempDir, Token,
    Transport, fails, pair, pair_with, promptly, small_pair, system, waiting_calls, while_waiting,
};
use keepsock::ErrorKind;

both_apis![
    read_during_write_on_one_socket_succeeds,
    write_of_one_call_is_not_split,
    read_in_several_threads_shares_the_bytes,
    read_line_after_other_reader_searches_remaining_bytes,
    accept_in_several_threads_shares_connections,
    cancel_ends_each_waiting_call,
    cancel_during_accept_ends_it,
    cancel_during_connect_ends_it,
    cancel_during_wait_for_write_lock_ends_it,
    cancel_token_stays_fired_until_reset,
    cancel_token_ends_calls_of_many_sockets,
    cancel_token_that_is_freed_stays_with_sockets,
    cancel_in_signal_handler_keeps_errno,
    cancel_token_descriptor_is_readable_while_fired,
    waiting_calls_sleep_until_an_event,
    waiting_accepts_sleep_although_they_have_a_token,
    close_ends_each_waiting_call,
    close_of_server_ends_each_accept,
    close_by_several_threads_ends_all_calls,
    close_of_half_closed_connection_after_reset_ends_all_calls,
    nonblocking_calls_do_not_wait,
    nonblocking_accept_does_not_wait,
    connection_of_several_owners_closes_with_the_last,
    close_by_one_owner_closes_for_all,
    descriptor_is_borrowed_from_connection,
    release_of_connection_keeps_it_open,
    release_of_listener_keeps_it_listening,
    release_of_used_descriptor_fails,
    adopt_of_socket_in_any_mode_succeeds,
    adopt_of_wrong_descriptor_leaves_it_to_caller,
];

/// The time within which a cancel takes effect (T2).
const SOON: Duration = Duration::from_millis(50);

/// T2, T4: the descriptor of a token ends a poll of the program, as often as the token is fired.
fn cancel_token_descriptor_is_readable_while_fired<A: Api>() {
    let token = A::token();
    let fd = token.fd().unwrap();
    let p = pair_with::<A>(Transport::Tcp, &[Opt::Cancel(&token)]);
    for _ in 0..2 {
        assert!(!system::becomes_readable(fd, 0));
        thread::scope(|scope| {
            scope.spawn(|| token.fire());
            system::poll(&[(fd, libc::POLLIN), (p.client.fd().unwrap(), libc::POLLIN)], 60_000);
        });
        assert!(system::becomes_readable(fd, 0), "fired");
        // A cancelled call leaves the descriptor readable.
        fails(p.client.read(&mut [0; 8]), ErrorKind::Cancelled);
        assert!(system::becomes_readable(fd, 0), "fired");
        assert_eq!(token.fd().unwrap(), fd);
        token.reset();
    }
    assert!(!system::becomes_readable(fd, 0), "reset");
    // A socket keeps the token, so the descriptor stays open.
    drop(token);
    assert!(!system::becomes_readable(fd, 0), "closed");
    assert!(system::identity(fd).is_some(), "closed");
}

/// T1, I1: a search does not count bytes that another reader took in the meantime.
fn read_line_after_other_reader_searches_remaining_bytes<A: Api>() {
    let p = pair::<A>(Transport::Tcp);
    thread::scope(|scope| {
        let _end = support::OnDrop(|| p.accepted.abort());
        let reader = scope.spawn(|| p.client.read_until(b'\n', 100));
        p.accepted.write_all(b"0123456789").unwrap();
        support::eventually("read ahead", || p.client.buffered() == 10);
        assert_eq!(p.client.read(&mut [0; 100]).unwrap(), 10);
        p.accepted.write_all(b"line\nand the rest\n").unwrap();
        assert_eq!(reader.join().unwrap().unwrap(), b"line\n");
    });
    assert_eq!(p.client.read_line(100).unwrap(), "and the rest");
}

/// T1, T3: this side has shut down sending, and the peer resets the connection. A writer fails because of
/// the former and a reader finds the latter, while another thread closes.
fn close_of_half_closed_connection_after_reset_ends_all_calls<A: Api>() {
    for round in 0..60 {
        let (client, mut peer) = support::with_raw_peer::<A>(&[Opt::CloseTimeout(50)]);
        peer.write_all(b"abcdefgh").unwrap();
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let _stop = support::OnDrop(|| stop.store(true, Ordering::SeqCst));
            scope.spawn(|| {
                while !stop.load(Ordering::SeqCst) {
                    drop(client.write_all(&[0; 60_000]));
                }
            });
            scope.spawn(|| {
                while !stop.load(Ordering::SeqCst) {
                    drop(client.read(&mut [0; 100]));
                }
            });
            drop(client.shutdown_write());
            thread::sleep(Duration::from_micros(150 * (round % 7)));
            // It has not read the bytes of the writer, so the kernel resets the connection.
            drop(peer);
            thread::sleep(Duration::from_micros(400 * (round % 5)));
            // In a third of the rounds no thread closes, and the calls return the reset.
            match round % 3 {
                0 => drop(client.close()),
                1 => client.abort(),
                _ => return,
            }
            fails(client.read(&mut [0; 1]), ErrorKind::Closed);
        });
    }
}

/// T1: one thread reads and one writes more than the kernel holds, on one socket.
fn read_during_write_on_one_socket_succeeds<A: Api>() {
    const BYTES: usize = 4 << 20;
    for transport in TRANSPORTS {
        let p = pair::<A>(transport);
        thread::scope(|scope| {
            for side in [&p.client, &p.accepted] {
                scope.spawn(move || {
                    for i in 0..BYTES / 4096 {
                        side.write_all(&[i as u8; 4096]).unwrap();
                    }
                });
                scope.spawn(move || {
                    let mut got = [0; 4096];
                    for i in 0..BYTES / 4096 {
                        side.read_exact(&mut got).unwrap();
                        assert!(got.iter().all(|b| *b == i as u8));
                    }
                });
            }
        });
    }
}

/// T1: the messages of several writers are not split, although each one is larger than the kernel
/// accepts at once.
fn write_of_one_call_is_not_split<A: Api>() {
    const LEN: usize = 40_000;
    const EACH: usize = 20;
    for transport in TRANSPORTS {
        let p = small_pair::<A>(transport);
        thread::scope(|scope| {
            for writer in 1..=4u8 {
                let client = &p.client;
                scope.spawn(move || {
                    let message = vec![writer; LEN];
                    for i in 0..EACH {
                        if i % 2 == 0 {
                            client.write_all(&message).unwrap();
                        } else {
                            let (a, b) = message.split_at(LEN / 3);
                            client.write_slices(&[a, b]).unwrap();
                        }
                    }
                });
            }
            let mut got = vec![0; LEN];
            let mut count = [0; 5];
            for _ in 0..4 * EACH {
                p.accepted.read_exact(&mut got).unwrap();
                assert!(got.iter().all(|b| *b == got[0]), "a message was split");
                count[got[0] as usize] += 1;
            }
            assert_eq!(count, [0, EACH, EACH, EACH, EACH]);
        });
    }
}

/// T1: each byte reaches one reader, and each line is whole.
fn read_in_several_threads_shares_the_bytes<A: Api>() {
    for transport in TRANSPORTS {
        let p = pair::<A>(transport);
        let seen = Mutex::new(HashSet::new());
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    loop {
                        match p.accepted.read_line(64) {
                            Ok(line) => {
                                let number: u32 = line.parse().unwrap();
                                assert!(seen.lock().unwrap().insert(number));
                            }
                            Err(failure) => {
                                assert!(failure.is(ErrorKind::EndOfStream), "{failure:?}");
                                return;
                            }
                        }
                    }
                });
            }
            for i in 0..2000 {
                p.client.write_all(format!("{i}\n").as_bytes()).unwrap();
            }
            p.client.shutdown_write().unwrap();
        });
        assert_eq!(seen.into_inner().unwrap().len(), 2000);
    }
}

/// T1, S2: several threads accept, with and without poll. Each connection reaches one of them.
fn accept_in_several_threads_shares_connections<A: Api>() {
    for polled in [false, true] {
        let server = A::listen("127.0.0.1:0", &[Opt::CloseTimeout(0)]).unwrap();
        if polled {
            server.set_accept_timeout(60_000).unwrap();
        }
        let peers = Mutex::new(HashSet::new());
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    loop {
                        match server.accept() {
                            Ok(client) => {
                                let port = client.five_tuple().remote.1;
                                assert!(peers.lock().unwrap().insert(port));
                                client.write_all(b"x").unwrap();
                                // The peer keeps the connection open until it has read.
                            }
                            Err(failure) => {
                                assert!(failure.is(ErrorKind::Closed), "{failure:?}");
                                return;
                            }
                        }
                    }
                });
            }
            for _ in 0..100 {
                let mut client = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
                assert_eq!(client.read(&mut [0; 8]).unwrap(), 1);
            }
            server.close();
        });
        assert_eq!(server.stats().accepted, 100);
    }
}

/// T2: each waiting call returns "cancelled" within 50 ms. The socket remains usable, and no byte
/// is lost in either direction.
fn cancel_ends_each_waiting_call<A: Api>() {
    for transport in TRANSPORTS {
        for waiting in waiting_calls::<A>() {
            promptly(SOON, || {
                let p = small_pair::<A>(transport);
                let token = A::token();
                p.client.set_cancel(Some(&token));
                let (outcome, took) = while_waiting(|| (waiting.call)(&p.client), || token.fire());
                let failure = fails(outcome, ErrorKind::Cancelled);
                token.reset();
                // Both directions still work, and the peer has the transferred bytes.
                thread::scope(|scope| {
                    scope.spawn(|| p.client.write_all(b"ping\n").unwrap());
                    let got = p.accepted.read_until(b'\n', 1 << 20).unwrap();
                    assert!(got.ends_with(b"ping\n"));
                    if waiting.name != "write" {
                        assert_eq!(got.len(), failure.transferred + 5);
                    }
                });
                p.accepted.write_all(b"pong\n").unwrap();
                assert_eq!(p.client.read_line(64).unwrap(), "pong");
                took
            });
        }
    }
}

/// T2: a token from the options, or set later, ends an accept.
fn cancel_during_accept_ends_it<A: Api>() {
    for transport in TRANSPORTS {
        for later in [false, true] {
            promptly(SOON, || {
                let (endpoint, _dir) = support::somewhere(transport);
                let token = A::token();
                let options = [Opt::CloseTimeout(0), Opt::Cancel(&token)];
                let server = A::listen(&endpoint, if later { &[] } else { &options }).unwrap();
                if later {
                    server.set_cancel(Some(&token)).unwrap();
                }
                let (outcome, took) = while_waiting(|| server.accept(), || token.fire());
                fails(outcome, ErrorKind::Cancelled);
                token.reset();
                let _client = A::connect(&server.endpoint(), &[]).unwrap();
                // The connection starts without the token.
                let accepted = server.accept().unwrap();
                token.fire();
                accepted.write_all(b"x").unwrap();
                accepted.abort();
                took
            });
        }
    }
}

/// T2: a token ends a connect to a silent TCP address, and to a full Unix socket.
fn cancel_during_connect_ends_it<A: Api>() {
    let queue = FullQueue::new();
    let dir = TempDir::new();
    let _server = A::listen(&dir.endpoint("s"), &[Opt::Backlog(1)]).unwrap();
    let _waiting = support::fill_queue(&dir.path("s"));
    for endpoint in [queue.endpoint(), dir.endpoint("s")] {
        promptly(SOON, || {
            let token = A::token();
            let (outcome, took) =
                while_waiting(|| A::connect(&endpoint, &[Opt::Cancel(&token)]), || token.fire());
            let failure = fails(outcome, ErrorKind::Cancelled);
            assert_eq!(failure.attempts.len(), 1);
            fails(A::connect(&endpoint, &[Opt::Cancel(&token)]), ErrorKind::Cancelled);
            took
        });
    }
}

/// T2: a write that waits for another write can be cancelled, keeps its own deadline, and detects a
/// close.
fn cancel_during_wait_for_write_lock_ends_it<A: Api>() {
    type Stop<A> = fn(&<A as Api>::Client, &<A as Api>::Token);
    let stops: [(Stop<A>, ErrorKind); 2] = [
        (|_, token| token.fire(), ErrorKind::Cancelled),
        (|client, _| closes::<A>(client), ErrorKind::Closed),
    ];
    for (stop, kind) in stops {
        promptly(SOON, || {
            let p = small_pair::<A>(Transport::Tcp);
            let token = A::token();
            p.client.set_cancel(Some(&token));
            thread::scope(|scope| {
                let first = scope.spawn(|| p.client.write_all(&vec![0; MORE_THAN_FITS]));
                // The first write has begun when its bytes arrive.
                assert!(p.accepted.read(&mut [0; 8]).unwrap() > 0);
                let (outcome, took) =
                    while_waiting(|| p.client.write_all(b"second"), || stop(&p.client, &token));
                assert_eq!(fails(outcome, kind).transferred, 0);
                fails(first.join().unwrap(), kind);
                took
            })
        });
    }
    let p = small_pair::<A>(Transport::Tcp);
    thread::scope(|scope| {
        let first = scope.spawn(|| p.client.write_all(&vec![0; MORE_THAN_FITS]));
        assert!(p.accepted.read(&mut [0; 8]).unwrap() > 0);
        p.client.set_write_timeout(60).unwrap();
        fails(p.client.write_all(b"second"), ErrorKind::TimedOut);
        p.client.set_nonblocking(true).unwrap();
        fails(p.client.write_all(b"third"), ErrorKind::WouldBlock);
        fails(p.client.close(), ErrorKind::TimedOut);
        fails(first.join().unwrap(), ErrorKind::Closed);
    });
}

/// T2: a fired token stays fired, so later calls also end, even if data is available. After a reset
/// or removal the token has no effect.
fn cancel_token_stays_fired_until_reset<A: Api>() {
    for transport in TRANSPORTS {
        let p = pair::<A>(transport);
        let token = A::token();
        assert!(!token.is_fired());
        token.fire();
        token.fire();
        assert!(token.is_fired());
        p.accepted.write_all(b"line\nline\n").unwrap();
        p.client.set_cancel(Some(&token));
        fails(p.client.read(&mut [0; 8]), ErrorKind::Cancelled);
        fails(p.client.read_exact(&mut [0; 8]), ErrorKind::Cancelled);
        fails(p.client.read_line(64), ErrorKind::Cancelled);
        fails(p.client.wait_hangup(0), ErrorKind::Cancelled);
        fails(p.client.write(b"x"), ErrorKind::Cancelled);
        fails(p.client.write_all(b"x"), ErrorKind::Cancelled);
        token.reset();
        assert!(!token.is_fired());
        assert_eq!(p.client.read_line(64).unwrap(), "line");
        p.client.write_all(b"x").unwrap();
        token.fire();
        p.client.set_cancel(None);
        assert_eq!(p.client.read_line(64).unwrap(), "line");
        p.client.write_all(b"y").unwrap();
        let mut two = [0; 2];
        p.accepted.read_exact(&mut two).unwrap();
        assert_eq!(&two, b"xy");
    }
}

/// T2: one token ends the calls of any number of sockets.
fn cancel_token_ends_calls_of_many_sockets<A: Api>() {
    let token = A::token();
    let pairs: Vec<_> = (0..8).map(|_| pair::<A>(Transport::Tcp)).collect();
    let waiting = AtomicU32::new(0);
    thread::scope(|scope| {
        let threads: Vec<_> = pairs
            .iter()
            .map(|p| {
                p.client.set_cancel(Some(&token));
                let waiting = &waiting;
                scope.spawn(move || {
                    waiting.fetch_add(1, Ordering::SeqCst);
                    p.client.read(&mut [0; 8])
                })
            })
            .collect();
        support::eventually("all read", || waiting.load(Ordering::SeqCst) == 8);
        token.fire();
        for t in threads {
            fails(t.join().unwrap(), ErrorKind::Cancelled);
        }
    });
}

/// T2: sockets keep their share of a freed token.
fn cancel_token_that_is_freed_stays_with_sockets<A: Api>() {
    let p = pair::<A>(Transport::Tcp);
    let token = A::token();
    p.client.set_cancel(Some(&token));
    drop(token);
    p.accepted.write_all(b"line\n").unwrap();
    assert_eq!(p.client.read_line(64).unwrap(), "line");
}

/// T2: a token can be fired in a signal handler, and errno is unchanged.
fn cancel_in_signal_handler_keeps_errno<A: Api>() {
    static TOKEN: AtomicPtr<()> = AtomicPtr::new(std::ptr::null_mut());
    static ERRNO_KEPT: AtomicBool = AtomicBool::new(false);
    /// Both tests of this function share the signal.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    extern "C" fn handler<A: Api>(_: i32) {
        system::set_errno(12345);
        system::with_pointer(TOKEN.load(Ordering::Acquire).cast::<A::Token>(), |token| {
            token.fire();
            token.fire();
        });
        ERRNO_KEPT.store(system::errno() == 12345, Ordering::Release);
    }
    let _turn = ONE_AT_A_TIME.lock().unwrap();
    let token = A::token();
    TOKEN.store((&raw const token).cast_mut().cast(), Ordering::Release);
    system::set_disposition(libc::SIGUSR2, handler::<A> as extern "C" fn(i32) as usize);
    let p = pair::<A>(Transport::Tcp);
    p.client.set_cancel(Some(&token));
    promptly(SOON, || {
        token.reset();
        let (outcome, took) =
            while_waiting(|| p.client.read(&mut [0; 8]), || system::raise(libc::SIGUSR2));
        fails(outcome, ErrorKind::Cancelled);
        assert!(ERRNO_KEPT.swap(false, Ordering::AcqRel));
        took
    });
    system::set_disposition(libc::SIGUSR2, libc::SIG_IGN);
}

/// T3: a close from another thread ends each waiting call with "closed" while other threads open
/// and close descriptors. No call uses a reused descriptor.
fn close_ends_each_waiting_call<A: Api>() {
    type End<A> = fn(&<A as Api>::Client);
    let close: End<A> = closes::<A>;
    let abort: End<A> = |c| c.abort();
    churning(|| {
        for transport in TRANSPORTS {
            for waiting in waiting_calls::<A>() {
                for (round, end) in [close, abort, close, abort].into_iter().enumerate() {
                    let p = small_pair::<A>(transport);
                    let token = A::token();
                    if round >= 2 {
                        p.client.set_cancel(Some(&token));
                    }
                    let (outcome, took) =
                        while_waiting(|| (waiting.call)(&p.client), || end(&p.client));
                    fails(outcome, ErrorKind::Closed);
                    assert!(took < Duration::from_secs(10), "{}: {took:?}", waiting.name);
                    fails(p.client.read(&mut [0; 8]), ErrorKind::Closed);
                }
            }
        }
    });
}

/// T2: an accept and a read that wait do not wake to look for a close, with or without a token.
fn waiting_calls_sleep_until_an_event<A: Api>() {
    let token = A::token();
    for options in [&[][..], &[Opt::Cancel(&token)]] {
        for accepts in [true, false] {
            let p = pair_with::<A>(Transport::Tcp, options);
            let thread = AtomicI32::new(0);
            let waiting = || {
                thread.store(system::thread_id(), Ordering::Release);
                match accepts {
                    true => fails(p.server.accept().map(drop), ErrorKind::Closed),
                    false => fails(p.client.read(&mut [0]).map(drop), ErrorKind::Closed),
                }
            };
            while_waiting(waiting, || {
                let before = switches(thread.load(Ordering::Acquire));
                thread::sleep(Duration::from_millis(200));
                let woken = switches(thread.load(Ordering::Acquire)) - before;
                p.server.close();
                p.client.abort();
                assert!(woken <= 2, "woken {woken} times in 200 ms");
            });
        }
    }
}

/// T1, T2: one of the threads that accept from several listeners polls. The others sleep, also with a token,
/// which still ends all of them.
fn waiting_accepts_sleep_although_they_have_a_token<A: Api>() {
    let token = A::token();
    let endpoints = ["127.0.0.1:0", "127.0.0.1:0"];
    let server = A::listen_all(&endpoints, &[Opt::Cancel(&token)]).unwrap();
    let accept = || fails(server.accept().map(drop), ErrorKind::Cancelled);
    let ids = [0; 3].map(AtomicI32::new);
    thread::scope(|scope| {
        let _fire = support::OnDrop(|| token.fire());
        let threads = ids.iter().map(|id| {
            scope.spawn(|| {
                id.store(system::thread_id(), Ordering::Release);
                accept()
            })
        });
        let threads: Vec<_> = threads.collect();
        let numbers = || ids.iter().map(|id| id.load(Ordering::Acquire));
        // The last thread that begins to wait may check once more.
        support::eventually("all threads sleep", || {
            numbers().all(|id| id != 0) && {
                let before: Vec<_> = numbers().map(switches).collect();
                thread::sleep(Duration::from_millis(100));
                numbers().map(switches).eq(before)
            }
        });
        token.fire();
        threads.into_iter().for_each(|thread| drop(thread.join().unwrap()));
    });
}

/// The number of times that a thread has begun to wait.
fn switches(thread: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/self/task/{thread}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    line.unwrap().trim().parse().unwrap()
}

/// Closes a connection that other threads use. A waiting writer cannot have written all bytes, so
/// the close reports an unknown delivery.
fn closes<A: Api>(client: &A::Client) {
    if let Err(failure) = client.close() {
        assert!(failure.is(ErrorKind::TimedOut), "{failure:?}");
    }
}

/// Two threads open, use and close descriptors while `f` runs.
fn churning(f: impl FnOnce()) {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| system::churn_descriptors(&stop));
        }
        let _stop = support::OnDrop(|| stop.store(true, Ordering::Release));
        f();
    });
}

/// T3: a close ends each accept with "closed", with and without poll.
fn close_of_server_ends_each_accept<A: Api>() {
    churning(|| {
        for transport in TRANSPORTS {
            for round in 0..6 {
                let (endpoint, _dir) = support::somewhere(transport);
                let server = A::listen(&endpoint, &[]).unwrap();
                if round % 2 == 1 {
                    server.set_accept_timeout(60_000).unwrap();
                }
                thread::scope(|scope| {
                    let second = scope.spawn(|| server.accept());
                    let (outcome, took) = while_waiting(|| server.accept(), || server.close());
                    fails(outcome, ErrorKind::Closed);
                    fails(second.join().unwrap(), ErrorKind::Closed);
                    assert!(took < Duration::from_secs(10), "{took:?}");
                });
                fails(server.accept(), ErrorKind::Closed);
                fails(server.fd(), ErrorKind::Closed);
                fails(server.set_nonblocking(true), ErrorKind::Closed);
                fails(server.set_accept_timeout(10), ErrorKind::Closed);
                assert_eq!(server.stats().accepted, 0);
            }
        }
    });
}

/// T3: one close ends all calls of all threads. If several threads close concurrently, one of them
/// performs the close.
fn close_by_several_threads_ends_all_calls<A: Api>() {
    churning(|| {
        for transport in TRANSPORTS {
            for _ in 0..5 {
                let p = small_pair::<A>(transport);
                let begun = AtomicU32::new(0);
                thread::scope(|scope| {
                    let calls: Vec<_> = waiting_calls::<A>()
                        .into_iter()
                        .map(|waiting| {
                            let (p, begun) = (&p, &begun);
                            scope.spawn(move || {
                                begun.fetch_add(1, Ordering::SeqCst);
                                (waiting.call)(&p.client)
                            })
                        })
                        .collect();
                    support::eventually("all calls have begun", || {
                        begun.load(Ordering::SeqCst) as usize == calls.len()
                    });
                    for _ in 0..2 {
                        scope.spawn(|| closes::<A>(&p.client));
                    }
                    for call in calls {
                        fails(call.join().unwrap(), ErrorKind::Closed);
                    }
                });
            }
        }
    });
}

/// T4: in non-blocking mode no call waits, the descriptor has the mode, and received bytes are
/// kept. After the mode is disabled, calls wait again.
fn nonblocking_calls_do_not_wait<A: Api>() {
    for transport in TRANSPORTS {
        let p = small_pair::<A>(transport);
        p.client.set_nonblocking(true).unwrap();
        assert!(system::is_nonblocking(p.client.fd().unwrap()));
        for waiting in waiting_calls::<A>() {
            if waiting.name != "wait_hangup" {
                fails((waiting.call)(&p.client), ErrorKind::WouldBlock);
            }
        }
        fails(p.client.wait_hangup(0), ErrorKind::TimedOut);
        // T2: a fired token takes precedence, for reads and writes.
        let token = A::token();
        token.fire();
        p.client.set_cancel(Some(&token));
        fails(p.client.read(&mut [0; 8]), ErrorKind::Cancelled);
        fails(p.client.read_line(64), ErrorKind::Cancelled);
        fails(p.client.write_all(b"x"), ErrorKind::Cancelled);
        p.client.set_cancel(None);
        p.accepted.write_all(b"1234").unwrap();
        support::eventually("the bytes have arrived", || {
            system::readable_bytes(p.client.fd().unwrap()) == 4
        });
        assert_eq!(fails(p.client.read_exact(&mut [0; 8]), ErrorKind::WouldBlock).transferred, 4);
        fails(p.client.read_line(64), ErrorKind::WouldBlock);
        assert_eq!(p.client.buffered(), 4);
        p.client.set_nonblocking(false).unwrap();
        // On other systems the descriptor stays non-blocking until it is released.
        assert!(!system::is_nonblocking(p.client.fd().unwrap()) || !cfg!(keepsock_linux));
        let (outcome, _) =
            while_waiting(|| p.client.read_line(64), || p.accepted.write_all(b"5678\n").unwrap());
        assert_eq!(outcome.unwrap(), "12345678");
        let mut buf = [0; 8];
        let (outcome, _) =
            while_waiting(|| p.client.read(&mut buf), || p.accepted.write_all(b"x").unwrap());
        assert_eq!(outcome.unwrap(), 1);
    }
}

/// T4: accept does not wait in non-blocking mode.
fn nonblocking_accept_does_not_wait<A: Api>() {
    for transport in TRANSPORTS {
        let (endpoint, _dir) = support::somewhere(transport);
        let server = A::listen(&endpoint, &[]).unwrap();
        server.set_nonblocking(true).unwrap();
        assert!(system::is_nonblocking(server.fd().unwrap()));
        fails(server.accept(), ErrorKind::WouldBlock);
        let _client = A::connect(&server.endpoint(), &[]).unwrap();
        server.accept().unwrap();
        fails(server.accept(), ErrorKind::WouldBlock);
        server.set_nonblocking(false).unwrap();
        let (outcome, _) = while_waiting(
            || server.accept(),
            || drop(A::connect(&server.endpoint(), &[]).unwrap()),
        );
        outcome.unwrap();
    }
}

/// T1: parts of a program with lifetimes of their own share a connection. It stays open until the
/// last owner drops it, in any order, and the buffered bytes are those of one connection.
fn connection_of_several_owners_closes_with_the_last<A: Api>() {
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2], [1, 2, 0]] {
        let Pair { client, accepted, server: _server, .. } = pair::<A>(Transport::Tcp);
        let second = client.another();
        let third = second.another();
        accepted.set_read_timeout(60_000).unwrap();
        accepted.write_all(b"first\nsecond\nthird\n").unwrap();
        assert_eq!(second.read_line(64).unwrap(), "first");
        let mut owners = [Some(client), Some(second), Some(third)];
        for (gone, line) in order.into_iter().zip(["second", "third", ""]) {
            owners[gone] = None;
            if let Some(owner) = owners.iter().flatten().next() {
                assert_eq!(owner.read_line(64).unwrap(), line);
                owner.write_all(b"x").unwrap();
                accepted.read_exact(&mut [0]).unwrap();
            }
        }
        assert_eq!(accepted.read(&mut [0; 8]).unwrap(), 0);
    }
}

/// T3: an explicit close by one owner ends a call of a second owner.
fn close_by_one_owner_closes_for_all<A: Api>() {
    let Pair { client, accepted, .. } = pair::<A>(Transport::Tcp);
    let second = client.another();
    let (read, _) = while_waiting(|| second.read(&mut [0; 8]), || client.close().unwrap());
    fails(read, ErrorKind::Closed);
    fails(second.write_all(b"x"), ErrorKind::Closed);
    drop(client);
    assert_eq!(second.close_reason(), Some(keepsock::CloseReason::Local));
    assert_eq!(accepted.read(&mut [0; 8]).unwrap(), 0);
}

/// T4: the borrowed descriptor refers to the socket.
fn descriptor_is_borrowed_from_connection<A: Api>() {
    let p = pair::<A>(Transport::Tcp);
    p.client.write_all(b"line\nmore").unwrap();
    let fd = p.accepted.fd().unwrap();
    assert!(system::becomes_readable(fd, 5000));
    // read_line reads ahead, so the kernel no longer has these bytes.
    assert_eq!(p.accepted.read_line(64).unwrap(), "line");
    assert_eq!(p.accepted.buffered(), 4);
    assert!(!system::becomes_readable(fd, 0));
    assert!(!system::becomes_readable(p.server.fd().unwrap(), 0));
    let _client = A::connect(&p.server.endpoint(), &[]).unwrap();
    assert!(system::becomes_readable(p.server.fd().unwrap(), 5000));
}

/// T4: the caller owns the released descriptor, the connection stays open, and the socket object is
/// closed.
fn release_of_connection_keeps_it_open<A: Api>() {
    let p = pair::<A>(Transport::Tcp);
    let number = p.client.fd().unwrap();
    let fd: OwnedFd = p.client.release().unwrap();
    assert_eq!(fd.as_raw_fd(), number);
    fails(p.client.read(&mut [0; 8]), ErrorKind::Closed);
    fails(p.client.release(), ErrorKind::Closed);
    p.client.close().unwrap();
    let remote = p.client.five_tuple().remote;
    drop(p.client);
    let mut stream = TcpStream::from(fd);
    assert_eq!(stream.peer_addr().unwrap().port(), remote.1);
    stream.write_all(b"line\n").unwrap();
    assert_eq!(p.accepted.read_line(64).unwrap(), "line");
    p.accepted.write_all(b"x").unwrap();
    assert_eq!(stream.read(&mut [0; 8]).unwrap(), 1);
}

/// T4: a released listening socket still listens, and the file of a Unix socket remains.
fn release_of_listener_keeps_it_listening<A: Api>() {
    for transport in TRANSPORTS {
        let (endpoint, dir) = support::somewhere(transport);
        let server = A::listen(&endpoint, &[]).unwrap();
        let endpoint = server.endpoint();
        let (outcome, _) = while_waiting(
            || server.accept(),
            || {
                let failure = fails(server.release(), ErrorKind::WrongState);
                assert!(failure.message.contains("another thread"), "{failure:?}");
                drop(A::connect(&endpoint, &[]).unwrap());
            },
        );
        outcome.unwrap();
        let number = server.fd().unwrap();
        let fd = server.release().unwrap();
        assert_eq!(fd.as_raw_fd(), number);
        fails(server.accept(), ErrorKind::Closed);
        fails(server.release(), ErrorKind::Closed);
        server.close();
        drop(server);
        let _client = A::connect(&endpoint, &[]).unwrap();
        let next = A::adopt_server(fd, &[]).map_err(|e| e.1).unwrap();
        next.accept().unwrap();
        drop(next);
        assert!(dir.is_none_or(|dir| dir.path("s").exists()));
    }
}

/// T4: a release fails while another thread is in a call, and while buffered bytes would be lost.
fn release_of_used_descriptor_fails<A: Api>() {
    for transport in TRANSPORTS {
        let p = pair::<A>(transport);
        let (outcome, _) = while_waiting(
            || p.client.read(&mut [0; 8]),
            || {
                let failure = fails(p.client.release(), ErrorKind::WrongState);
                assert!(failure.message.contains("another thread"), "{failure:?}");
                p.accepted.write_all(b"x").unwrap();
            },
        );
        assert_eq!(outcome.unwrap(), 1);
        p.accepted.write_all(b"a\nb").unwrap();
        p.client.read_line(64).unwrap();
        let failure = fails(p.client.release(), ErrorKind::WrongState);
        assert!(failure.message.contains("the read buffer has 1 byte: read"), "{failure:?}");
        assert_eq!(p.client.read(&mut [0; 8]).unwrap(), 1);
        p.client.release().unwrap();
    }
}

/// T4: connected and listening sockets, TCP and Unix, are adopted in whatever mode they are.
fn adopt_of_socket_in_any_mode_succeeds<A: Api>() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let options = [Opt::ReadTimeout(40), Opt::CloseTimeout(0)];
    let server = A::adopt_server(listener.into(), &options).map_err(|e| e.1).unwrap();
    assert_eq!((server.port(), server.endpoint()), (address.port(), address.to_string()));
    let stream = TcpStream::connect(address).unwrap();
    stream.set_nonblocking(true).unwrap();
    let local = stream.local_addr().unwrap();
    let client = A::adopt_client(stream.into(), &options).map_err(|e| e.1).unwrap();
    assert_eq!(client.name(), format!("tcp {local} -> {address}"));
    let accepted = server.accept().unwrap();
    fails(client.read(&mut [0; 8]), ErrorKind::TimedOut);
    accepted.write_all(b"line\n").unwrap();
    assert_eq!(client.read_line(64).unwrap(), "line");
    let (outcome, _) = while_waiting(|| server.accept(), || server.close());
    fails(outcome, ErrorKind::Closed);

    let dir = TempDir::new();
    let listener = crate::support::os::unix::net::UnixListener::bind(dir.path("s")).unwrap();
    let server = A::adopt_server(listener.into(), &[]).map_err(|e| e.1).unwrap();
    assert_eq!(server.endpoint(), dir.endpoint("s"));
    let (a, mut b) = crate::support::os::unix::net::UnixStream::pair().unwrap();
    let client = A::adopt_client(a.into(), &options).map_err(|e| e.1).unwrap();
    b.write_all(b"line\n").unwrap();
    assert_eq!(client.read_line(64).unwrap(), "line");
    // The adoption resets options that would make calls hang or end early, or that a child would
    // inherit.
    let (a, _b) = crate::support::os::unix::net::UnixStream::pair().unwrap();
    a.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
    a.set_write_timeout(Some(Duration::from_millis(10))).unwrap();
    socket2::SockRef::from(&a).set_linger(Some(Duration::from_secs(9))).unwrap();
    let client = A::adopt_client(a.into(), &[]).map_err(|e| e.1).unwrap();
    let fd = client.fd().unwrap();
    assert_eq!(system::linger(fd), None);
    assert_eq!(system::timeout_option(fd, libc::SO_RCVTIMEO), Duration::ZERO);
    assert_eq!(system::timeout_option(fd, libc::SO_SNDTIMEO), Duration::ZERO);
    // The library did not create the file, and does not remove it.
    server.close();
    assert!(dir.path("s").exists());
}

/// T4, E2: a descriptor of a wrong kind is rejected, stays open, and still belongs to the caller.
fn adopt_of_wrong_descriptor_leaves_it_to_caller<A: Api>() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let connected = TcpStream::connect(address).unwrap();
    let unconnected =
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let (reader, _writer) = system::pipe();
    #[cfg(unix)]
    let file = std::fs::File::open("/dev/null").unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    udp.connect(udp.local_addr().unwrap()).unwrap();
    let refused = |fd: OwnedFd, client: ErrorKind, server: Option<ErrorKind>| {
        let number = fd.as_raw_fd();
        let (fd, failure) = A::adopt_client(fd, &[]).err().unwrap();
        assert!(failure.is(client), "{failure:?}");
        assert_eq!((fd.as_raw_fd(), &*failure.operation), (number, "adopt"));
        let Some(server) = server else { return fd };
        let (fd, failure) = A::adopt_server(fd, &[]).err().unwrap();
        assert!(failure.is(server), "{failure:?}");
        fd
    };
    let wrong = ErrorKind::WrongState;
    refused(unconnected.into(), wrong, Some(wrong));
    refused(udp.into(), wrong, Some(wrong));
    #[cfg(unix)]
    refused(file.into(), ErrorKind::Os, Some(ErrorKind::Os));
    refused(reader, ErrorKind::Os, Some(ErrorKind::Os));
    let fd = refused(listener.into(), wrong, None);
    // The previous owners still use these descriptors.
    let listener = TcpListener::from(fd);
    let (fd, failure) = A::adopt_server(connected.into(), &[]).err().unwrap();
    assert!(failure.is(wrong), "{failure:?}");
    let (mut peer, _) = listener.accept().unwrap();
    TcpStream::from(fd).write_all(b"x").unwrap();
    assert_eq!(peer.read(&mut [0; 8]).unwrap(), 1);
}

/// T3: a borrowed descriptor stays open while it is borrowed (Rust only).
#[test]
fn close_with_borrowed_descriptor_keeps_it_open() {
    use crate::support::os::AsFd;
    let _limit = support::Limit::new("close_with_borrowed_descriptor_keeps_it_open");
    let p = pair::<support::RustApi>(Transport::Tcp);
    let name = Client::five_tuple(&p.client);
    let borrowed = p.client.borrow().unwrap();
    Client::close(&p.client).unwrap();
    let start = Instant::now();
    let local = socket2::SockRef::from(&borrowed.as_fd()).local_addr().unwrap();
    assert_eq!(local.as_socket().unwrap().port(), name.local.1);
    let outcome: Outcome<usize> = Client::read(&p.client, &mut [0; 8]);
    fails(outcome, ErrorKind::Closed);
    drop(borrowed);
    assert!(start.elapsed() < Duration::from_secs(20));
}
