//! V10: functions that are posted to event loops, timers of a service, and the list of connections.

use std::collections::{HashMap, HashSet};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Barrier, Mutex};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use crate::support::*;
use keepsock::{CloseReason, ErrorKind};

both_apis![
    functions_posted_to_a_connection_run_in_its_loop_in_order,
    functions_posted_while_connections_close_run_once_before_on_close,
    functions_posted_to_a_service_run_once_while_it_ends,
    functions_that_post_themselves_delay_no_connection,
    functions_posted_from_inside_callbacks_follow_the_callback,
    post_to_a_connection_that_ended_is_refused,
    post_to_a_service_with_threads_is_refused,
    panic_in_a_posted_function_ends_only_its_connection,
    for_each_visits_every_open_connection,
    functions_of_a_paused_or_closing_connection_run,
    service_timer_expires_once_or_repeatedly_until_it_is_removed,
    service_timer_after_a_long_callback_skips_missed_periods,
    service_timer_with_a_short_interval_keeps_its_rate,
    service_timer_expires_within_about_1_ms,
    conn_timer_expires_within_about_1_ms,
    service_timers_end_with_the_service,
    skip_in_a_callback_skips_the_test_alone,
];

const LIMIT: Duration = Duration::from_secs(60);

fn listen<A: Api>() -> A::Server {
    A::listen("127.0.0.1:0", &[]).unwrap()
}

fn client<A: Api>(server: &impl Server<A>) -> TcpStream {
    let client = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
    client.set_read_timeout(Some(LIMIT)).unwrap();
    client
}

/// Callbacks that report each connection that opens.
fn opening<A: Api>() -> (On<A>, Receiver<A::Connection>) {
    let (tell, opened) = channel();
    let tell = Mutex::new(tell);
    let open = move |c: &A::Connection| drop(tell.lock().unwrap().send(c.clone()));
    (On { open: Some(Box::new(open)), ..On::default() }, opened)
}

fn next<T>(told: &Receiver<T>) -> T {
    told.recv_timeout(LIMIT).unwrap()
}

/// Waits until the loop of a connection holds its callbacks, until the returned barrier is passed.
fn block<A: Api>(service: &A::Service) -> Arc<Barrier> {
    let (begun, leave) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
    let (in_loop, until) = (begun.clone(), leave.clone());
    let wait = move || {
        in_loop.wait();
        until.wait();
    };
    service.post(Box::new(wait)).unwrap();
    begun.wait();
    leave
}

/// V10: functions that a thread posts run in its order, in the thread of the connection's callbacks.
fn functions_posted_to_a_connection_run_in_its_loop_in_order<A: Api>() {
    for threads in [1, 3] {
        let server = listen::<A>();
        let (tell, told) = channel::<(A::Connection, ThreadId)>();
        let tell = Mutex::new(tell);
        let open = move |c: &A::Connection| {
            tell.lock().unwrap().send((c.clone(), thread::current().id())).unwrap();
        };
        let on = On { open: Some(Box::new(open)), ..On::default() };
        let service = server.serve_events(&[Serve::Threads(threads)], on).unwrap();
        let clients: Vec<_> = (0..4).map(|_| client(&server)).collect();
        let (order, ran) = channel();
        for _ in &clients {
            let (conn, loop_of) = next(&told);
            for n in 0..200 {
                let order = order.clone();
                let function = move |c: &A::Connection| {
                    order.send((c.id(), n, thread::current().id() == loop_of)).unwrap();
                };
                conn.post(Box::new(function)).unwrap();
            }
        }
        let mut expected = HashMap::new();
        for _ in 0..800 {
            let (id, n, is_in_loop) = next(&ran);
            let due = expected.entry(id).or_insert(0);
            assert_eq!((n, is_in_loop), (*due, true));
            *due += 1;
        }
        assert_eq!(expected.len(), 4);
        let (tell, told) = channel();
        for n in 0..200 {
            let tell = tell.clone();
            let function = move || tell.send((n, thread::current().id())).unwrap();
            service.post(Box::new(function)).unwrap();
        }
        let all: Vec<_> = (0..200).map(|_| next(&told)).collect();
        assert!(all.iter().map(|(n, _)| *n).eq(0..200));
        assert_eq!(all.iter().map(|(_, thread)| *thread).collect::<HashSet<_>>().len(), 1);
    }
}

/// V10, V7, V9: four threads post while connections close. Each function whose post succeeded runs
/// once, before on_close; the others do not run.
fn functions_posted_while_connections_close_run_once_before_on_close<A: Api>() {
    const ROUNDS: usize = 30;
    for threads in [1, 3] {
        let server = listen::<A>();
        let (mut on, opened) = opening::<A>();
        let closed = Arc::new(Mutex::new(HashSet::new()));
        let (note, (tell, told)) = (closed.clone(), channel());
        let tell = Mutex::new(tell);
        on.close = Some(Box::new(move |c, _| {
            note.lock().unwrap().insert(c.id());
            tell.lock().unwrap().send(()).unwrap();
        }));
        let service = server.serve_events(&[Serve::Threads(threads)], on).unwrap();
        let (accepted, ran, late) =
            (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        for round in 0..ROUNDS {
            let peer = client(&server);
            let conn = next(&opened);
            let start = Barrier::new(5);
            thread::scope(|s| {
                for _ in 0..4 {
                    s.spawn(|| {
                        start.wait();
                        for n in 0..400 {
                            let (ran, late, closed) = (ran.clone(), late.clone(), closed.clone());
                            let function = move |c: &A::Connection| {
                                ran.fetch_add(1, Ordering::SeqCst);
                                let is_late = closed.lock().unwrap().contains(&c.id());
                                late.fetch_add(is_late.into(), Ordering::SeqCst);
                                drop(c.send(b"x"));
                            };
                            match conn.post(Box::new(function)) {
                                Ok(()) => accepted.fetch_add(1, Ordering::SeqCst),
                                Err(failure) => {
                                    let ended = failure.is(ErrorKind::Closed)
                                        || failure.is(ErrorKind::WrongState);
                                    assert!(ended, "{failure:?}");
                                    break;
                                }
                            };
                            if n % 16 == 15 {
                                thread::yield_now();
                            }
                        }
                    });
                }
                start.wait();
                match round % 3 {
                    0 => drop(peer),
                    1 => conn.close(),
                    _ => conn.abort(),
                }
                next(&told);
            });
        }
        let accepted = accepted.into_inner();
        assert!(accepted >= ROUNDS, "{accepted}");
        assert_eq!(ran.load(Ordering::SeqCst), accepted);
        assert_eq!(late.load(Ordering::SeqCst), 0, "no function runs after on_close");
        drop(service);
        assert_eq!(ran.load(Ordering::SeqCst), accepted);
    }
}

/// V10, V5, V7: functions that were posted before a service ends run before wait, drain and free
/// return. Later posts are refused.
fn functions_posted_to_a_service_run_once_while_it_ends<A: Api>() {
    for (threads, way) in [(1, 0), (1, 1), (1, 2), (3, 0), (3, 1), (3, 2)] {
        let server = listen::<A>();
        let service = server.serve_events(&[Serve::Threads(threads)], On::default()).unwrap();
        let peers: Vec<_> = (0..3).map(|_| client(&server)).collect();
        let (ran, accepted, ends) =
            (Arc::new(AtomicUsize::new(0)), AtomicUsize::new(0), AtomicBool::new(false));
        let post = || {
            let ran = ran.clone();
            let count = move || {
                ran.fetch_add(1, Ordering::SeqCst);
            };
            let posted = service.post(Box::new(count));
            accepted.fetch_add(posted.is_ok().into(), Ordering::SeqCst);
            posted
        };
        thread::scope(|s| {
            for _ in 0..4 {
                s.spawn(|| {
                    while !ends.load(Ordering::SeqCst) {
                        if let Err(failure) = post() {
                            return assert!(failure.is(ErrorKind::Closed), "{failure:?}");
                        }
                        thread::yield_now();
                    }
                });
            }
            eventually("functions run", || ran.load(Ordering::SeqCst) > 100);
            match way {
                0 => drop(service.drain(0).unwrap()),
                1 => {
                    // The service ends when no thread posts.
                    ends.store(true, Ordering::SeqCst);
                    service.stop();
                    service.for_each(&mut |c| c.close()).unwrap();
                }
                _ => ends.store(true, Ordering::SeqCst),
            }
        });
        if way == 2 {
            // More functions wait than one round of the loop calls.
            service.post(Box::new(|| thread::sleep(Duration::from_millis(50)))).unwrap();
            (0..1000).for_each(|_| post().unwrap());
        }
        let accepted = accepted.load(Ordering::SeqCst);
        match way {
            0 => drop(fails(post(), ErrorKind::Closed)),
            1 => {
                drop(peers);
                service.wait(60_000).unwrap();
            }
            _ => drop(service),
        }
        assert_eq!(ran.load(Ordering::SeqCst), accepted, "threads {threads}, way {way}");
    }
}

/// Posts a function that posts itself again until a post fails.
fn post_again<C: Connection>(conn: &C, ended: Arc<AtomicUsize>) {
    let again = ended.clone();
    let posted = conn.post(Box::new(move |c: &C| post_again(c, again)));
    ended.fetch_add(posted.is_err().into(), Ordering::SeqCst);
}

fn post_to_service_again<A: Api>(service: &Arc<A::Service>, ended: Arc<AtomicUsize>) {
    let (again, weak) = (ended.clone(), Arc::downgrade(service));
    let posted = service.post(Box::new(move || {
        if let Some(service) = weak.upgrade() {
            post_to_service_again::<A>(&service, again);
            // The test waits until the functions have ended before it drops the service.
        }
    }));
    ended.fetch_add(posted.is_err().into(), Ordering::SeqCst);
}

/// V10: functions that post themselves again run between the events of all connections, and end with
/// the service.
fn functions_that_post_themselves_delay_no_connection<A: Api>() {
    let server = listen::<A>();
    let (mut on, opened) = opening::<A>();
    on.data = Some(Box::new(|c, data| c.send(data).unwrap()));
    let service = Arc::new(server.serve_events(&[], on).unwrap());
    let (mut busy, mut other) = (client(&server), client(&server));
    let ended = Arc::new(AtomicUsize::new(0));
    post_again(&next(&opened), ended.clone());
    post_to_service_again::<A>(&service, ended.clone());
    for client in [&mut busy, &mut other] {
        for _ in 0..20 {
            client.write_all(b"ping").unwrap();
            let mut reply = [0; 4];
            client.read_exact(&mut reply).unwrap();
            assert_eq!(&reply, b"ping");
        }
    }
    service.drain(0).unwrap();
    eventually("both functions end", || ended.load(Ordering::SeqCst) == 2);
    eventually("the loop lets go of the service", || Arc::strong_count(&service) == 1);
}

/// V10, V7: functions that callbacks and functions post run after the callback, and may send, close
/// and stop. on_close cannot post.
fn functions_posted_from_inside_callbacks_follow_the_callback<A: Api>() {
    let server = listen::<A>();
    let (tell, told) = channel();
    let tell = Arc::new(Mutex::new(tell));
    let tells = |what: &'static str| {
        let tell = tell.clone();
        move || tell.lock().unwrap().send(what).unwrap()
    };
    let (in_open, after_open) = (tells("open"), tells("posted by open"));
    let (in_data, after_data, twice) =
        (tells("data"), tells("posted by data"), tells("posted by a function"));
    let (after_open, after_data, twice) =
        (Arc::new(after_open), Arc::new(after_data), Arc::new(twice));
    let (refused, closed) = (tells("refused"), tells("close"));
    let on = On::<A> {
        open: Some(Box::new(move |c| {
            let after = after_open.clone();
            c.post(Box::new(move |c| {
                after();
                c.send(b"hello").unwrap();
            }))
            .unwrap();
            in_open();
        })),
        data: Some(Box::new(move |c, _| {
            let (after, twice) = (after_data.clone(), twice.clone());
            c.post(Box::new(move |c: &A::Connection| {
                let close = move |c: &A::Connection| {
                    twice();
                    c.close();
                };
                c.post(Box::new(close)).unwrap();
                after();
            }))
            .unwrap();
            in_data();
        })),
        close: Some(Box::new(move |c, _| {
            fails(c.post(Box::new(|_| panic!("after on_close"))), ErrorKind::Closed);
            refused();
            closed();
        })),
        ..On::default()
    };
    let service = Arc::new(server.serve_events(&[], on).unwrap());
    let mut peer = client(&server);
    let mut hello = [0; 5];
    peer.read_exact(&mut hello).unwrap();
    peer.write_all(b"x").unwrap();
    assert_eq!(peer.read(&mut hello).unwrap(), 0);
    drop(peer);
    let expected = [
        "open",
        "posted by open",
        "data",
        "posted by data",
        "posted by a function",
        "refused",
        "close",
    ];
    assert_eq!(expected.map(|_| next(&told)), expected);
    // A function that would wait for its own thread is refused.
    let (tell, told) = channel();
    let inner = service.clone();
    let function = move || {
        let waits = [inner.drain(0).map(drop), inner.wait(0)];
        inner.stop();
        drop(inner);
        tell.send(waits).unwrap();
    };
    service.post(Box::new(function)).unwrap();
    for waits in next(&told) {
        fails(waits, ErrorKind::WrongState);
    }
    service.wait(60_000).unwrap();
}

/// V9, V10: a handle whose connection has ended is refused.
fn post_to_a_connection_that_ended_is_refused<A: Api>() {
    let server = listen::<A>();
    let (mut on, opened) = opening::<A>();
    let (tell, told) = channel();
    let tell = Mutex::new(tell);
    on.close = Some(Box::new(move |_, reason| tell.lock().unwrap().send(reason).unwrap()));
    let service = server.serve_events(&[], on).unwrap();
    drop(client(&server));
    let conn = next(&opened);
    assert_eq!(next(&told), CloseReason::PeerClosed);
    eventually("the connection has ended", || service.connections() == 0);
    let ended = if A::NUMBER == 2 { ErrorKind::WrongState } else { ErrorKind::Closed };
    fails(conn.post(Box::new(|_| panic!("after the end"))), ended);
    let _next = client(&server);
    next(&opened);
    fails(conn.post(Box::new(|_| panic!("to another connection"))), ended);
    drop(service);
    fails(conn.post(Box::new(|_| panic!("after the service"))), ended);
}

/// V10: a service with a thread for each connection has no event loop.
fn post_to_a_service_with_threads_is_refused<A: Api>() {
    let server = listen::<A>();
    let service = server.serve(&[], Box::new(|_| ())).unwrap();
    fails(service.post(Box::new(|| panic!("no loop"))), ErrorKind::WrongState);
    fails(service.for_each(&mut |_| panic!("no loop")), ErrorKind::WrongState);
    fails(service.add_timer(0, 0, Box::new(|_| panic!("no loop"))), ErrorKind::WrongState);
    fails(service.remove_timer(1), ErrorKind::WrongState);
}

/// E3, V10: a function that panics ends its connection, or nothing if the service runs it.
fn panic_in_a_posted_function_ends_only_its_connection<A: Api>() {
    if A::NUMBER == 2 {
        return; // a C function cannot panic
    }
    let server = listen::<A>();
    let (on, opened) = opening::<A>();
    let service = server.serve_events(&[], on).unwrap();
    let (mut one, mut other) = (client(&server), client(&server));
    let conns = [next(&opened), next(&opened)];
    service.post(Box::new(|| panic!("the test causes this panic"))).unwrap();
    conns[0].post(Box::new(|_| panic!("the test causes this panic"))).unwrap();
    assert!(one.read(&mut [0; 8]).is_err());
    conns[1].post(Box::new(|c| c.send(b"good").unwrap())).unwrap();
    let mut reply = [0; 4];
    other.read_exact(&mut reply).unwrap();
    assert_eq!(&reply, b"good");
}

/// V10, V9: the list contains each open connection once, of every loop, accepted, added or
/// connected. The function may close connections.
fn for_each_visits_every_open_connection<A: Api>() {
    for threads in [1, 3] {
        let (server, upstream) = (listen::<A>(), listen::<A>());
        let (on, opened) = opening::<A>();
        let service = server.serve_events(&[Serve::Threads(threads)], on).unwrap();
        service.for_each(&mut |_| panic!("no connection is open")).unwrap();
        let _clients: Vec<_> = (0..5).map(|_| client(&server)).collect();
        let added = A::connect(&upstream.endpoint(), &[]).unwrap();
        assert!(service.add(added, 1).is_ok());
        service.connect(&upstream.endpoint(), &[], 2).unwrap();
        let open: HashSet<_> = (0..7).map(|_| next(&opened).id()).collect();
        let mut visited = Vec::new();
        let caller = thread::current().id();
        service
            .for_each(&mut |c| {
                assert_eq!(thread::current().id(), caller);
                visited.push(c.id());
                c.send(b"x").unwrap();
            })
            .unwrap();
        assert_eq!(visited.len(), 7);
        assert_eq!(visited.into_iter().collect::<HashSet<_>>(), open);
        // The connections end during the iteration.
        let mut visits = 0;
        service
            .for_each(&mut |_| {
                visits += 1;
                service.for_each(&mut |c| c.abort()).unwrap();
                eventually("all connections have ended", || service.connections() == 0);
            })
            .unwrap();
        // In C the others are omitted. In Rust the list still has them.
        assert!(visits == 1 || A::NUMBER == 1);
        service.for_each(&mut |_| panic!("no connection is open")).unwrap();
    }
}

/// V10: the functions of a connection run while it is paused, while it waits for the peer's FIN, and
/// if it ends before its loop has time for them.
fn functions_of_a_paused_or_closing_connection_run<A: Api>() {
    let server = listen::<A>();
    let (on, opened) = opening::<A>();
    let service = server.serve_events(&[], on).unwrap();
    let _peer = client(&server);
    let conn = next(&opened);
    let (tell, told) = channel();
    let post = |what: &'static str| {
        let tell = tell.clone();
        let function = move |c: &A::Connection| tell.send((what, c.send(b"x").is_ok())).unwrap();
        conn.post(Box::new(function)).unwrap();
    };
    conn.pause();
    post("paused");
    assert_eq!(next(&told), ("paused", true));
    // The peer does not close its side.
    conn.close();
    post("closing");
    assert_eq!(next(&told), ("closing", false));
    let leave = block::<A>(&service);
    conn.abort();
    for _ in 0..200 {
        post("aborted");
    }
    leave.wait();
    for _ in 0..200 {
        assert_eq!(next(&told), ("aborted", false));
    }
}

/// V10: a timer that does not repeat expires once and not early; a repeating one until a thread or
/// its own function removes it.
fn service_timer_expires_once_or_repeatedly_until_it_is_removed<A: Api>() {
    for threads in [1, 3] {
        let server = listen::<A>();
        let service = server.serve_events(&[Serve::Threads(threads)], On::default()).unwrap();
        let service = Arc::new(service);
        let (tell, told) = channel();
        let tells = |what: &'static str| {
            let tell = tell.clone();
            move |timer: u64| tell.send((what, timer, thread::current().id())).unwrap()
        };
        let late = service.add_timer(60_000, 60_000, Box::new(|_| panic!("too early"))).unwrap();
        let begin = Instant::now();
        let once = service.add_timer(100, 0, Box::new(tells("once"))).unwrap();
        let (what, timer, first_loop) = next(&told);
        assert_eq!((what, timer), ("once", once));
        assert!(begin.elapsed() >= Duration::from_millis(100), "{:?}", begin.elapsed());
        fails(service.remove_timer(once), ErrorKind::WrongState);
        let again = service.add_timer(0, 10, Box::new(tells("again"))).unwrap();
        for _ in 0..5 {
            assert_eq!(next(&told), ("again", again, first_loop));
        }
        service.remove_timer(again).unwrap();
        // A function that is posted later is called in the same thread.
        let end = tell.clone();
        let posted = move || end.send(("posted", 0, thread::current().id())).unwrap();
        service.post(Box::new(posted)).unwrap();
        while next(&told) != ("posted", 0, first_loop) {}
        let (inner, mut calls, own) = (Arc::downgrade(&service), 0, tells("removed"));
        let removes = move |timer| {
            calls += 1;
            if calls == 3 {
                inner.upgrade().unwrap().remove_timer(timer).unwrap();
                own(calls);
            }
        };
        let removed = service.add_timer(0, 10, Box::new(removes)).unwrap();
        assert_eq!(next(&told), ("removed", 3, first_loop));
        fails(service.remove_timer(removed), ErrorKind::WrongState);
        service.add_timer(50, 0, Box::new(tells("last"))).unwrap();
        assert_eq!(next(&told).0, "last", "the removed timers are not called");
        service.remove_timer(late).unwrap();
        fails(service.remove_timer(late), ErrorKind::WrongState);
        fails(service.remove_timer(0), ErrorKind::WrongState);
        if A::NUMBER == 2 {
            for (delay, interval) in [(-2, 0), (0, -2), (INFINITE, 0), (0, INFINITE)] {
                let never = Box::new(|_| panic!("not a time"));
                fails(service.add_timer(delay, interval, never), ErrorKind::InvalidArgument);
            }
        }
    }
}

/// V10: a loop that was in a callback calls a timer once, not once for each missed period.
fn service_timer_after_a_long_callback_skips_missed_periods<A: Api>() {
    let server = listen::<A>();
    let service = Arc::new(server.serve_events(&[], On::default()).unwrap());
    let calls = Arc::new(AtomicUsize::new(0));
    let count = calls.clone();
    let tick = move |_| {
        count.fetch_add(1, Ordering::SeqCst);
    };
    service.add_timer(0, 10, Box::new(tick)).unwrap();
    eventually("the timer expires", || calls.load(Ordering::SeqCst) > 2);
    let (tell, told) = channel();
    let (inner, count) = (Arc::downgrade(&service), calls.clone());
    let long = move || {
        let before = count.load(Ordering::SeqCst);
        thread::sleep(Duration::from_millis(500));
        // The loop handles its timers before it calls this function.
        let after = move || tell.send(count.load(Ordering::SeqCst) - before).unwrap();
        inner.upgrade().unwrap().post(Box::new(after)).unwrap();
    };
    service.post(Box::new(long)).unwrap();
    let missed = next(&told);
    assert!((1..=2).contains(&missed), "{missed} calls");
}

/// V10: a short interval is not rounded up to the clock of the idle timeouts.
fn service_timer_with_a_short_interval_keeps_its_rate<A: Api>() {
    // 60 calls took 900 ms.
    promptly(Duration::from_millis(600), || {
        let server = listen::<A>();
        let service = server.serve_events(&[], On::default()).unwrap();
        let (tell, told) = channel();
        let start = Instant::now();
        let tick = move |_| tell.send(Instant::now()).unwrap_or_default();
        service.add_timer(5, 5, Box::new(tick)).unwrap();
        let last = (0..60).fold(start, |_, _| next(&told));
        let took = last - start;
        assert!(took >= Duration::from_millis(300), "{took:?}");
        took
    });
}

/// V10: the first call is not delayed by the precision of the clock of the idle timeouts, 10 ms.
fn service_timer_expires_within_about_1_ms<A: Api>() {
    // The call took 15 ms with that clock.
    promptly(Duration::from_millis(12), || {
        let server = listen::<A>();
        let service = server.serve_events(&[], On::default()).unwrap();
        let (tell, told) = channel();
        let start = Instant::now();
        let tick = move |_| tell.send(Instant::now()).unwrap_or_default();
        service.add_timer(5, 0, Box::new(tick)).unwrap();
        let took = next(&told) - start;
        assert!(took >= Duration::from_millis(5), "{took:?}");
        took
    });
}

/// V2: the timer of a connection is as precise as that of a service, also if it is set again to an
/// earlier or later time.
fn conn_timer_expires_within_about_1_ms<A: Api>() {
    let (tell, told) = channel();
    let (tell, timers) = (Arc::new(Mutex::new(tell)), AtomicUsize::new(0));
    let set = tell.clone();
    let on = On::<A> {
        open: Some(Box::new(move |c| {
            c.set_timer(60_000).unwrap();
            let _ = set.lock().unwrap().send(Instant::now());
            c.set_timer(5).unwrap();
        })),
        timer: Some(Box::new(move |c| {
            let now = Instant::now();
            let _ = tell.lock().unwrap().send(now);
            if timers.fetch_add(1, Ordering::Relaxed) % 2 == 0 {
                c.set_timer(2).unwrap();
                c.set_timer(5).unwrap();
            }
        })),
        ..On::default()
    };
    let server = listen::<A>();
    let service = server.serve_events(&[], on).unwrap();
    // Each of the two timers took 16 to 30 ms with the clock of the idle timeouts.
    promptly(Duration::from_millis(20), || {
        let client = client::<A>(&server);
        let [start, middle, end] = [next(&told), next(&told), next(&told)];
        let fifth = Duration::from_millis(5);
        assert!(middle - start >= fifth && end - middle >= fifth);
        drop(client);
        eventually("the connection is closed", || service.connections() == 0);
        end - start
    });
}

/// V10, V5: timers do not delay the end of a service, and no function is called after a drain has
/// returned. Then no timer can be set.
fn service_timers_end_with_the_service<A: Api>() {
    for drains in [true, false] {
        let server = listen::<A>();
        let service = server.serve_events(&[], On::default()).unwrap();
        let (calls, over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        for delay in 0..20 {
            let (calls, over) = (calls.clone(), over.clone());
            let tick = move |_| {
                assert!(!over.load(Ordering::SeqCst), "the service has ended");
                calls.fetch_add(1, Ordering::SeqCst);
                thread::sleep(Duration::from_millis(2));
            };
            service.add_timer(delay, 10, Box::new(tick)).unwrap();
        }
        service.add_timer(60_000, 0, Box::new(|_| panic!("too early"))).unwrap();
        eventually("the timers expire", || calls.load(Ordering::SeqCst) > 20);
        service.stop();
        service.wait(60_000).unwrap();
        if drains {
            service.drain(60_000).unwrap();
            over.store(true, Ordering::SeqCst);
            fails(service.add_timer(0, 0, Box::new(|_| ())), ErrorKind::Closed);
            thread::sleep(Duration::from_millis(50));
        }
        drop(service);
        over.store(true, Ordering::SeqCst);
    }
}

/// A callback that calls a helper which this platform does not have skips its test, and does not end the
/// process of the tests.
fn skip_in_a_callback_skips_the_test_alone<A: Api>() {
    for place in ["open", "post", "timer"] {
        let reason = skipped(|| {
            let server = listen::<A>();
            let (mut on, opened) = opening::<A>();
            if place == "open" {
                on.open = Some(Box::new(|_| skip("an example")));
            }
            let service = server.serve_events(&[], on).unwrap();
            let _client = client(&server);
            match place {
                "post" => next(&opened).post(Box::new(|_| skip("an example"))).unwrap(),
                "timer" => {
                    service.add_timer(1, 0, Box::new(|_| skip("an example"))).unwrap();
                }
                _ => {}
            }
            eventually("the test is skipped", || false);
        });
        assert_eq!(reason.unwrap().as_deref(), Some("an example"), "{place}");
    }
}
