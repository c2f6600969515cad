//! C7, V2, T4: a service that connects again after its connection was lost.

use std::net::TcpListener;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use crate::serve_events::{What, closes, listen, next, reporting, until};
use crate::support;
use crate::support::system::Forked;
use crate::support::*;
use keepsock::{CloseReason, ErrorKind};

use What::{Close, Data, Failed, Open};

both_apis![
    service_reconnects_to_later_server_and_subscribes_again,
    service_reconnects_after_each_loss,
    service_reconnect_to_closing_peer_waits_with_backoff,
    service_reconnect_after_close_by_the_program_ends,
    service_that_stops_ends_reconnects_once,
    service_with_several_loops_reconnects_every_connection,
    service_reconnect_that_ends_reports_its_cause,
    service_reconnect_of_a_full_service_succeeds_later,
    service_reconnect_with_wrong_state_or_option_leaves_the_object,
    service_reconnect_during_delay_uses_no_cpu,
    service_reconnects_leave_no_descriptor,
    connect_that_finished_with_a_forked_copy_uses_no_cpu,
];

const SOON: Duration = Duration::from_secs(60);
/// A day: no second attempt occurs.
const NEVER: i64 = 24 * 60 * 60 * 1000;

/// A reconnect that reports each delay.
fn reconnect<A: Api>(
    endpoint: &str,
    options: &[Opt<'_, A>],
    backoff: (i64, i64),
) -> (A::Reconnect, Receiver<Told>) {
    let mut reconnect = A::reconnect(endpoint, options).unwrap();
    reconnect.set_backoff(backoff.0, backoff.1).unwrap();
    let (tell, told) = channel();
    reconnect.on_retry(Box::new(move |t| drop(tell.send(t))));
    (reconnect, told)
}

fn given<A: Api>(service: &A::Service, reconnect: A::Reconnect, data: usize) {
    service.reconnect(reconnect, data).map_err(|(_, failure)| failure).unwrap();
}

/// The next event of a service whose reconnects have ended, and no other event.
fn last(told: Receiver<What>) -> Vec<What> {
    let mut all = Vec::new();
    loop {
        match told.recv_timeout(SOON) {
            Ok(what) => all.push(what),
            Err(RecvTimeoutError::Disconnected) => return all,
            Err(RecvTimeoutError::Timeout) => panic!("the callbacks still exist"),
        }
    }
}

fn accepted(listener: &TcpListener) -> std::net::TcpStream {
    let (stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream
}

fn reset(stream: std::net::TcpStream) {
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
}

/// C7, V2, T4: a service connects to a server that starts later, TCP or Unix, with a report before each
/// delay. Each connection has the data of the reconnect, and `on_open` can send.
fn service_reconnects_to_later_server_and_subscribes_again<A: Api>() {
    let dir = TempDir::new();
    for transport in support::TRANSPORTS {
        let (endpoint, kind) = match transport {
            Transport::Tcp => {
                let port = support::own_port();
                (format!("{}:{port}", A::own_address(190)), ErrorKind::Refused)
            }
            Transport::Unix => (dir.endpoint("later"), ErrorKind::NotFound),
        };
        let server = listen::<A>(&[]);
        let (mut on, told) = reporting::<A>();
        let (tell, opened) = channel();
        let tell = std::sync::Mutex::new(tell);
        on.open = Some(Box::new(move |c: &A::Connection| {
            tell.lock().unwrap().send(c.data()).unwrap();
            c.set_data(99);
            c.send(b"sub\n").unwrap();
        }));
        let service = server.serve_events(&[], on).unwrap();
        let (again, retries) = reconnect::<A>(&endpoint, &[], (5, 20));
        given::<A>(&service, again, 7);
        for n in 1..=4 {
            let retry = retries.recv_timeout(SOON).unwrap();
            assert_eq!(retry.tries, n);
            assert!((0..=20).contains(&retry.wait_ms), "{retry:?}");
            let error = retry.error.unwrap();
            assert!(error.is(kind), "{error:?}");
        }
        for _ in 0..3 {
            let upstream = A::listen(&endpoint, &[]).unwrap();
            upstream.set_accept_timeout(60_000).unwrap();
            let client = upstream.accept().unwrap();
            client.set_read_timeout(60_000).unwrap();
            assert_eq!(opened.recv_timeout(SOON).unwrap(), 7);
            assert_eq!(client.read_line(9).unwrap(), "sub");
            client.write_all(b"news").unwrap();
            assert!(matches!(next(&told), Data(_, data) if data == b"news"));
            upstream.close();
            client.abort();
            until(&told, closes);
            let _ = retries.try_iter().count();
        }
        drop(service);
        let end = last(told);
        assert_eq!(end, [Failed(ErrorKind::Closed.code(), 7)]);
    }
}

/// C7, V2: after each loss, by reset or end of stream, exactly one `on_open` follows.
fn service_reconnects_after_each_loss<A: Api>() {
    let upstream = TcpListener::bind((A::own_address(191), 0)).unwrap();
    let server = listen::<A>(&[]);
    let (on, told) = reporting::<A>();
    let service = server.serve_events(&[], on).unwrap();
    let (again, retries) = reconnect::<A>(&upstream.local_addr().unwrap().to_string(), &[], (1, 3));
    given::<A>(&service, again, 7);
    for n in 0..10 {
        let stream = accepted(&upstream);
        let Open(id) = next(&told) else { panic!("not opened") };
        let reason = if n % 2 == 0 {
            reset(stream);
            CloseReason::PeerReset
        } else {
            drop(stream);
            assert_eq!(next(&told), What::Finished(id));
            CloseReason::PeerClosed
        };
        assert_eq!(next(&told), Close(id, reason));
        let retry = retries.recv_timeout(SOON).unwrap();
        assert!(retry.error.is_none() && retry.tries == 0, "{retry:?}");
    }
    let _stream = accepted(&upstream);
    assert!(matches!(next(&told), Open(_)));
    // An open connection continues after a stop, and is the last one.
    service.stop();
    fails(service.wait(50), ErrorKind::TimedOut);
    assert_eq!(service.drain(60_000).unwrap(), (1, 0));
    drop(service);
    assert!(!last(told).iter().any(|what| matches!(what, Failed(..) | Open(_))));
}

/// C7, V2: a peer that accepts and closes at once is contacted with increasing delays, also if `on_open`
/// has run.
fn service_reconnect_to_closing_peer_waits_with_backoff<A: Api>() {
    const CONNECTS: usize = 9;
    let upstream = TcpListener::bind((A::own_address(192), 0)).unwrap();
    let server = listen::<A>(&[]);
    let (on, told) = reporting::<A>();
    let service = server.serve_events(&[], on).unwrap();
    let (again, retries) =
        reconnect::<A>(&upstream.local_addr().unwrap().to_string(), &[], (10, 20_000));
    given::<A>(&service, again, 7);
    for _ in 0..CONNECTS {
        drop(accepted(&upstream));
        assert!(matches!(next(&told), Open(_)));
        assert!(matches!(next(&told), What::Finished(_)));
        assert!(matches!(next(&told), Close(..)));
    }
    let waits: Vec<_> =
        (0..CONNECTS).map(|_| retries.recv_timeout(SOON).unwrap().wait_ms).collect();
    let limits = std::iter::successors(Some(10), |limit| Some(limit * 2));
    assert!(waits.iter().zip(limits).all(|(wait, limit)| *wait <= limit), "{waits:?}");
    // With backoff, the probability that all waits are shorter is 2 to the power of -28.
    assert!(waits.iter().any(|wait| *wait > 10), "{waits:?}");
}

/// C7, V2: the program's close or abort ends the reconnecting, without another callback.
fn service_reconnect_after_close_by_the_program_ends<A: Api>() {
    for aborts in [false, true] {
        let upstream = TcpListener::bind((A::own_address(193), 0)).unwrap();
        let server = listen::<A>(&[]);
        let (mut on, told) = reporting::<A>();
        on.open = Some(Box::new(move |c| if aborts { c.abort() } else { c.close() }));
        let service = server.serve_events(&[], on).unwrap();
        let (again, retries) =
            reconnect::<A>(&upstream.local_addr().unwrap().to_string(), &[], (1, 1));
        given::<A>(&service, again, 7);
        drop(accepted(&upstream));
        assert!(matches!(next(&told), Close(_, CloseReason::Local)));
        assert_eq!(service.stop_and_wait(60_000).unwrap(), 0);
        drop(service);
        assert_eq!(last(told), []);
        assert_eq!(retries.iter().count(), 0);
        upstream.set_nonblocking(true).unwrap();
        assert!(upstream.accept().is_err(), "another connect");
    }
}

/// C7, V5: a stop, a drain, a close of the server socket, its token, or the end of the service end a
/// delay and a try at once, with one callback, also on several loops.
fn service_that_stops_ends_reconnects_once<A: Api>() {
    let queue = FullQueue::new();
    for loops in [1, 3] {
        for way in ["stop", "drain", "close", "token", "free"] {
            let token = A::token();
            let server = listen::<A>(&[Opt::Cancel(&token)]);
            let (on, told) = reporting::<A>();
            let service = server.serve_events(&[Serve::Threads(loops)], on).unwrap();
            let (delayed, retries) =
                reconnect::<A>(&refused_address().to_string(), &[], (NEVER, NEVER));
            let (tries, _) = reconnect::<A>(&queue.endpoint(), &[], (NEVER, NEVER));
            given::<A>(&service, delayed, 1);
            given::<A>(&service, tries, 2);
            retries.recv_timeout(SOON).unwrap();
            match way {
                "stop" => service.stop(),
                "drain" => assert_eq!(service.drain(NEVER).unwrap(), (0, 0)),
                "close" => server.close(),
                "token" => token.fire(),
                _ => {}
            }
            if way != "free" {
                service.wait(60_000).unwrap();
                let (again, _) = reconnect::<A>(&queue.endpoint(), &[], (1, 1));
                let (mut again, failure) = service.reconnect(again, 3).err().unwrap();
                assert!(failure.is(ErrorKind::Closed), "{failure:?}");
                again.set_backoff(1, 2).unwrap();
            }
            drop(service);
            let mut end = last(told);
            end.sort_by_key(|what| format!("{what:?}"));
            let expected = [1, 2].map(|data| Failed(ErrorKind::Closed.code(), data));
            assert_eq!(end, expected, "{way}");
        }
    }
}

/// C7, V2: reconnects on several loops are independent of each other.
fn service_with_several_loops_reconnects_every_connection<A: Api>() {
    const PEERS: usize = 8;
    let upstream = TcpListener::bind((A::own_address(194), 0)).unwrap();
    let server = listen::<A>(&[]);
    let (mut on, told) = reporting::<A>();
    let (tell, opened) = channel();
    let tell = std::sync::Mutex::new(tell);
    on.open = Some(Box::new(move |c: &A::Connection| {
        tell.lock().unwrap().send(c.data()).unwrap();
    }));
    let service = server.serve_events(&[Serve::Threads(3)], on).unwrap();
    let endpoint = upstream.local_addr().unwrap().to_string();
    for data in 1..=PEERS {
        let (again, _) = reconnect::<A>(&endpoint, &[], (1, 2));
        given::<A>(&service, again, data);
    }
    for _ in 0..5 {
        let streams: Vec<_> = (0..PEERS).map(|_| accepted(&upstream)).collect();
        let mut data: Vec<_> = (0..PEERS).map(|_| opened.recv_timeout(SOON).unwrap()).collect();
        data.sort_unstable();
        assert_eq!(data, (1..=PEERS).collect::<Vec<_>>());
        streams.into_iter().for_each(reset);
        for _ in 0..PEERS {
            assert!(matches!(next(&told), Close(_, CloseReason::PeerReset)));
        }
    }
    drop(service);
    assert!(!last(told).iter().any(|what| matches!(what, Open(_))));
}

/// C7, T2, E1: the timeout, the token and a permanent error end the reconnecting, and
/// `on_connect_failed` has the cause.
fn service_reconnect_that_ends_reports_its_cause<A: Api>() {
    let refused = refused_address().to_string();
    let queue = FullQueue::new();
    let server = listen::<A>(&[]);
    let (on, told) = reporting::<A>();
    let service = server.serve_events(&[], on).unwrap();
    let failed = |kind: ErrorKind, data| assert_eq!(next(&told), Failed(kind.code(), data));

    let (mut limited, _) = reconnect::<A>(&refused, &[], (1, 5));
    limited.set_limit(60).unwrap();
    given::<A>(&service, limited, 1);
    failed(ErrorKind::Refused, 1);

    let unusable = [Opt::Interface("nosuchiface0")];
    let (permanent, _) = reconnect::<A>(&refused, &unusable, (1, 1));
    given::<A>(&service, permanent, 2);
    failed(ErrorKind::InvalidEndpoint, 2);

    let token = A::token();
    let (delayed, retries) = reconnect::<A>(&refused, &[Opt::Cancel(&token)], (NEVER, NEVER));
    given::<A>(&service, delayed, 3);
    retries.recv_timeout(SOON).unwrap();
    token.fire();
    failed(ErrorKind::Cancelled, 3);

    let token = A::token();
    let (tries, _) = reconnect::<A>(&queue.endpoint(), &[Opt::Cancel(&token)], (1, 1));
    given::<A>(&service, tries, 4);
    token.fire();
    failed(ErrorKind::Cancelled, 4);
    assert_eq!(service.stop_and_wait(60_000).unwrap(), 0);
}

/// C7, V4: while the service is full, the reconnecting waits.
fn service_reconnect_of_a_full_service_succeeds_later<A: Api>() {
    let upstream = TcpListener::bind((A::own_address(195), 0)).unwrap();
    let server = listen::<A>(&[]);
    let (on, told) = reporting::<A>();
    let service = server.serve_events(&[Serve::Max(1)], on).unwrap();
    let client = A::connect(&server.endpoint(), &[]).unwrap();
    let Open(first) = next(&told) else { panic!("not opened") };
    // Each try leaves a connection in the queue of `upstream`, which is not full for 6 s.
    let (again, retries) =
        reconnect::<A>(&upstream.local_addr().unwrap().to_string(), &[], (10, 50));
    given::<A>(&service, again, 7);
    for _ in 0..3 {
        retries.recv_timeout(SOON).unwrap();
    }
    client.abort();
    let closed = next(&told);
    assert!(matches!(closed, Close(id, _) if id == first), "{closed:?}");
    assert!(matches!(next(&told), Open(id) if id != first));
}

/// C7, E2, V2: a service that cannot connect again rejects the object and leaves it usable.
fn service_reconnect_with_wrong_state_or_option_leaves_the_object<A: Api>() {
    let upstream = TcpListener::bind((A::own_address(196), 0)).unwrap();
    let endpoint = upstream.local_addr().unwrap().to_string();
    let events = listen::<A>(&[]);
    let events = (events.serve_events(&[], On::default()).unwrap(), events);
    let threads = listen::<A>(&[]);
    let threads = (threads.serve(&[], Box::new(|_| ())).unwrap(), threads);
    let (again, _) = reconnect::<A>(&endpoint, &[], (1, 1));
    let (again, failure) = threads.0.reconnect(again, 1).err().unwrap();
    assert!(failure.is(ErrorKind::WrongState), "{failure:?}");
    assert_eq!(&*failure.operation, "reconnect");
    let parent = std::sync::Mutex::new(Some(again));
    assert!(Forked::run(|| {
        let again = parent.lock().unwrap().take().unwrap();
        let (again, failure) = events.0.reconnect(again, 1).err().unwrap();
        assert!(failure.is(ErrorKind::WrongState), "{failure:?}");
        std::mem::forget(again);
    }));
    let mut again = parent.into_inner().unwrap().unwrap();
    again.connect().unwrap();
    accepted(&upstream);
    let (timed, _) = reconnect::<A>(&endpoint, &[Opt::ReadTimeout(9)], (1, 1));
    let (mut timed, failure) = events.0.reconnect(timed, 1).err().unwrap();
    assert!(failure.is(ErrorKind::InvalidArgument), "{failure:?}");
    assert!(failure.message.contains("read_timeout has no effect"), "{failure:?}");
    timed.connect().unwrap();
    // A try that is in progress, and its watch, end.
    let queue = FullQueue::new();
    let (mut tries, _) = reconnect::<A>(&queue.endpoint(), &[], (1, 1));
    let waits = crate::event_loop::Waits::default();
    tries.set_watch(waits.watch());
    assert!(tries.try_connect().unwrap().is_none());
    assert_eq!(waits.descriptors(), 1);
    given::<A>(&events.0, tries, 1);
    assert!(waits.are_over());
}

/// C7: during a delay the loop sleeps.
fn service_reconnect_during_delay_uses_no_cpu<A: Api>() {
    let server = listen::<A>(&[]);
    let (on, _told) = reporting::<A>();
    let service = server.serve_events(&[], on).unwrap();
    let token = A::token();
    let address = refused_address().to_string();
    let mut again = A::reconnect(&address, &[Opt::Cancel(&token)]).unwrap();
    again.set_backoff(60_000, NEVER).unwrap();
    let (tell, threads) = channel();
    again.on_retry(Box::new(move |_| tell.send(system::thread_id()).unwrap()));
    given::<A>(&service, again, 1);
    let thread = threads.recv_timeout(SOON).unwrap();
    wakes_at_most(10, thread);
}

/// Checks how often a thread wakes in 300 ms.
fn wakes_at_most(limit: u64, thread: i32) {
    let wakes = || -> u64 {
        let status = std::fs::read_to_string(format!("/proc/self/task/{thread}/status")).unwrap();
        let line = status.lines().find(|line| line.starts_with("voluntary_ctxt")).unwrap();
        line.split_whitespace().last().unwrap().parse().unwrap()
    };
    promptly(Duration::from_millis(5), || {
        let (cpu, before) = (system::cpu_time_of(thread), wakes());
        std::thread::sleep(Duration::from_millis(300));
        assert!(wakes() - before <= limit, "{} wake-ups", wakes() - before);
        system::cpu_time_of(thread) - cpu
    });
}

/// C7, L1: reconnects, with delays and failed tries, leave no descriptor.
fn service_reconnects_leave_no_descriptor<A: Api>() {
    let test = test_name!(A, "service_reconnects_leave_no_descriptor");
    process::in_process(&test, Duration::from_secs(60), || {
        let count = || std::fs::read_dir("/proc/self/fd").unwrap().count();
        let upstream = TcpListener::bind((A::own_address(197), 0)).unwrap();
        let endpoint = upstream.local_addr().unwrap().to_string();
        let server = listen::<A>(&[]);
        let (on, told) = reporting::<A>();
        let service = server.serve_events(&[], on).unwrap();
        let before = count();
        let (again, _) = reconnect::<A>(&endpoint, &[], (1, 2));
        given::<A>(&service, again, 7);
        for _ in 0..100 {
            let stream = accepted(&upstream);
            assert!(matches!(next(&told), Open(_)));
            reset(stream);
            assert!(matches!(next(&told), Close(..)));
        }
        let stream = accepted(&upstream);
        let Open(_) = next(&told) else { panic!("not opened") };
        // The connection and its peer.
        assert_eq!(count(), before + 2);
        drop((stream, upstream));
        assert_eq!(service.stop_and_wait(60_000).unwrap(), 0);
        // The listener of the service is closed.
        assert!(count() <= before, "{} descriptors, {before} before", count());
    });
}

/// C7, E5: a connect that has finished does not wake the loop again while a forked child has copies of
/// its descriptors. The same holds for the delay of a reconnect.
fn connect_that_finished_with_a_forked_copy_uses_no_cpu<A: Api>() {
    for reconnects in [false, true] {
        let queue = FullQueue::new();
        let server = listen::<A>(&[]);
        let (mut on, told) = reporting::<A>();
        let (tell, threads) = channel();
        let tell = std::sync::Mutex::new(tell);
        on.open = Some(Box::new(move |_| tell.lock().unwrap().send(system::thread_id()).unwrap()));
        let service = server.serve_events(&[], on).unwrap();
        if reconnects {
            let (again, _) = reconnect::<A>(&queue.endpoint(), &[], (1, 1));
            given::<A>(&service, again, 1);
        } else {
            service.connect(&queue.endpoint(), &[], 1).unwrap();
        }
        // The loop has handled the request when it calls the function, and waits for the connect.
        let (done, waits) = channel();
        service.post(Box::new(move || done.send(()).unwrap())).unwrap();
        waits.recv_timeout(SOON).unwrap();
        let _child = Forked::new(|| {});
        queue.make_room();
        let thread = threads.recv_timeout(SOON).unwrap();
        wakes_at_most(10, thread);
        drop(service);
        assert!(last(told).iter().all(|what| matches!(what, Close(..))));
    }
}
