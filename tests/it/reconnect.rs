//! Reconnecting: C1 (one timeout for all attempts and waits), T2 (a cancel ends a wait), E1 (the
//! real cause, and the number of attempts), and backoff that protects the server.

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use crate::event_loop::Waits;
use crate::support;
use crate::support::libc;
use crate::support::{
    Api, Client, FullQueue, INFINITE, Opt, Outcome, Reconnect, Server, TempDir, Token, Told,
    Transport, fails, promptly, refused_address, timed, while_waiting,
};
use keepsock::{ErrorKind, Family};

both_apis![
    reconnect_to_later_server_succeeds,
    reconnect_to_busy_server_succeeds_later,
    reconnect_applies_all_options_again,
    reconnect_with_timeout_returns_in_time,
    reconnect_backoff_continues_across_calls,
    reconnect_timeout_reports_the_earlier_cause,
    reconnect_after_pause_forgets_earlier_causes,
    cancel_during_attempt_ends_reconnect,
    cancel_during_wait_ends_reconnect,
    cancel_in_retry_callback_ends_reconnect,
    reconnect_with_permanent_error_fails_at_once,
    reconnect_to_closing_server_waits_with_backoff,
    reconnect_with_value_out_of_range_fails,
    try_connect_reaches_later_server_in_an_event_loop,
    try_connect_keeps_timeout_token_and_permanent_errors,
    try_connect_in_progress_gets_a_new_timeout,
    try_connect_that_is_dropped_leaves_nothing_watched,
];

/// A day: no second attempt occurs.
const NEVER: i64 = 24 * 60 * 60 * 1000;

/// An address of this test, without a listener.
fn later<A: Api>(test: u8) -> SocketAddr {
    SocketAddr::new(support::ip(&A::own_address(test)), support::own_port())
}

/// Sends each call of the retry callback to a channel.
fn listen_to<A: Api>(reconnect: &mut A::Reconnect) -> mpsc::Receiver<Told> {
    let (tell, told) = mpsc::channel();
    reconnect.on_retry(Box::new(move |t| {
        let _ = tell.send(t);
    }));
    told
}

const SOON: Duration = Duration::from_secs(60);

/// The library retries until the server exists, TCP or Unix, and reports each wait.
fn reconnect_to_later_server_succeeds<A: Api>() {
    let dir = TempDir::new();
    for transport in support::TRANSPORTS {
        let (endpoint, kind) = match transport {
            Transport::Tcp => (later::<A>(20).to_string(), ErrorKind::Refused),
            Transport::Unix => (dir.endpoint("later"), ErrorKind::NotFound),
        };
        let mut reconnect = A::reconnect(&endpoint, &[]).unwrap();
        reconnect.set_backoff(5, 20).unwrap();
        let told = listen_to::<A>(&mut reconnect);
        std::thread::scope(|scope| {
            let connecting = scope.spawn(|| reconnect.connect());
            for n in 1..=4 {
                let told = told.recv_timeout(SOON).unwrap();
                let bound = [5, 10, 20, 20][n as usize - 1];
                assert!((1..=bound).contains(&told.wait_ms), "{n}: {told:?}");
                assert_eq!(told.tries, n);
                let error = told.error.unwrap();
                assert!(error.is(kind) && error.attempts.len() == 1, "{error:?}");
            }
            let server = A::listen(&endpoint, &[]).unwrap();
            connecting.join().unwrap().unwrap();
            server.accept().unwrap();
        });
        // The earlier failures have ended: the cause is the lost connection.
        drop(told);
        let told = listen_to::<A>(&mut reconnect);
        let _server = A::listen(&endpoint, &[]).unwrap();
        reconnect.connect().unwrap();
        let first = told.try_recv().unwrap();
        assert!(first.error.is_none() && first.tries == 0, "{first:?}");
    }
}

/// C1: the connect timeout of the options applies to each attempt.
fn reconnect_to_busy_server_succeeds_later<A: Api>() {
    let queue = FullQueue::new();
    // An attempt that succeeds after its timeout would take the place in the queue for itself.
    let mut reconnect = A::reconnect(&queue.endpoint(), &[Opt::ConnectTimeout(400)]).unwrap();
    reconnect.set_backoff(1, 1).unwrap();
    let told = listen_to::<A>(&mut reconnect);
    std::thread::scope(|scope| {
        let connecting = scope.spawn(|| reconnect.connect());
        // A failed assertion makes room as well, because the scope waits for the thread.
        let room = support::OnDrop(|| queue.make_room());
        for _ in 0..3 {
            let error = told.recv_timeout(SOON).unwrap().error.unwrap();
            assert!(error.is(ErrorKind::TimedOut), "{error:?}");
            // The timeout counts from the start of the call, and the attempt begins after that.
            assert!(error.attempts[0].elapsed_us >= 200_000, "{error:?}");
        }
        drop(room);
        connecting.join().unwrap().unwrap();
    });
}

/// Each connection has all options, not only the first one. After a lost connection the library
/// waits, which it reports.
fn reconnect_applies_all_options_again<A: Api>() {
    let address = later::<A>(21).to_string();
    let from = format!("{}:0", A::own_address(22));
    let options = [Opt::Keepalive(7000, 3000, 4), Opt::Nodelay(false), Opt::Local(&from)];
    let mut reconnect = A::reconnect(&address, &options).unwrap();
    reconnect.set_backoff(5, 30_000).unwrap();
    let told = listen_to::<A>(&mut reconnect);
    for n in 0..3 {
        let server = A::listen(&address, &[]).unwrap();
        let client = reconnect.connect().unwrap();
        assert_eq!(client.keepalive().unwrap(), Some((7000, 3000, 4)), "{n}");
        let nodelay =
            support::system::option(client.fd().unwrap(), libc::IPPROTO_TCP, libc::TCP_NODELAY);
        assert_eq!(nodelay, 0, "{n}");
        assert_eq!(client.five_tuple().local.0, A::own_address(22), "{n}");
        server.accept().unwrap().abort();
        server.close();
        fails(client.read(&mut [0; 8]), ErrorKind::Reset);
    }
    let waits: Vec<_> = told.try_iter().collect();
    assert!(waits.iter().all(|t| t.error.is_none() && t.tries == 0), "{waits:?}");
    assert_eq!(waits.len(), 2);
}

/// C1, E1: the call returns by its timeout, in an attempt and between two attempts. The error has
/// the real cause, and the number of attempts.
fn reconnect_with_timeout_returns_in_time<A: Api>() {
    let address = refused_address().to_string();
    promptly(Duration::from_millis(250), || {
        let mut reconnect = A::reconnect(&address, &[]).unwrap();
        reconnect.set_backoff(5, 20).unwrap();
        reconnect.set_limit(200).unwrap();
        let told = listen_to::<A>(&mut reconnect);
        let (outcome, took) = timed(|| reconnect.connect());
        let failure = fails(outcome, ErrorKind::Refused);
        assert!(took >= Duration::from_millis(200), "{took:?}");
        assert_eq!(failure.os_error, libc::ECONNREFUSED);
        assert_eq!((&*failure.operation, failure.attempts.len()), ("connect", 1));
        // The last attempt may end when the timeout has passed. Then no wait is reported.
        let told = told.try_iter().count();
        assert!(told > 0 || took > Duration::from_millis(250), "{told}");
        let start = |tries| {
            let unit = if tries == 1 { "try" } else { "tries" };
            format!("connect to {address}: connection refused after {tries} {unit} in ")
        };
        let counted = [told, told + 1].iter().any(|n| failure.message.starts_with(&start(*n)));
        assert!(counted, "{failure:?}: {told}");
        took
    });
    // A server that does not answer: the timeout ends the only attempt.
    let queue = FullQueue::new();
    promptly(Duration::from_millis(250), || {
        let mut reconnect = A::reconnect(&queue.endpoint(), &[]).unwrap();
        reconnect.set_limit(200).unwrap();
        let (outcome, took) = timed(|| reconnect.connect());
        let failure = fails(outcome, ErrorKind::TimedOut);
        assert!(took >= Duration::from_millis(200), "{took:?}");
        let start = format!("connect to {}: timed out after 1 try in ", queue.endpoint());
        assert!(failure.message.starts_with(&start), "{failure:?}");
        took
    });
}

/// A program that calls again at once waits for the next attempt, and does not spin. The timeout
/// also applies to this wait. A reset makes the next attempt at once.
fn reconnect_backoff_continues_across_calls<A: Api>() {
    let mut reconnect = A::reconnect(&refused_address().to_string(), &[]).unwrap();
    reconnect.set_backoff(NEVER, NEVER).unwrap();
    reconnect.set_limit(500).unwrap();
    let told = listen_to::<A>(&mut reconnect);
    for call in 0..3 {
        let (outcome, took) = timed(|| reconnect.connect());
        let failure = fails(outcome, ErrorKind::Refused);
        assert!(took >= Duration::from_millis(500), "{took:?}");
        // E1: a later call makes no try of its own, and reports neither the tries nor the time of the
        // first call.
        assert_eq!(failure.message.contains("refused after 1 try in "), call == 0, "{failure:?}");
        assert_eq!(failure.message.contains("try in "), call == 0, "{failure:?}");
    }
    // The attempt may end when the timeout has passed. Then its call reports no wait.
    let told: Vec<_> = told.try_iter().collect();
    assert!((2..=3).contains(&told.len()), "{told:?}");
    for told in told {
        assert!(told.tries <= 1 && told.error.unwrap().is(ErrorKind::Refused));
    }
    reconnect.reset();
    let failure = fails(reconnect.connect(), ErrorKind::Refused);
    assert!(failure.message.contains("refused after 1 try in "), "{failure:?}");
    // A lost connection is not the cause of an error. The timeout is.
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    let mut reconnect = A::reconnect(&server.endpoint(), &[]).unwrap();
    reconnect.set_backoff(NEVER, NEVER).unwrap();
    reconnect.set_limit(500).unwrap();
    drop(reconnect.connect().unwrap());
    let failure = fails(reconnect.connect(), ErrorKind::TimedOut);
    let start = format!(
        "connect to {}: timed out: the timeout ended before a try was complete after ",
        server.endpoint()
    );
    assert!(failure.message.starts_with(&start), "{failure:?}");
}

/// E1: an attempt that the timeout ended does not hide the earlier cause.
fn reconnect_timeout_reports_the_earlier_cause<A: Api>() {
    let address = later::<A>(23);
    let mut reconnect = A::reconnect(&address.to_string(), &[]).unwrap();
    reconnect.set_backoff(1, 1).unwrap();
    reconnect.set_limit(4000).unwrap();
    let silent = Arc::new(AtomicU32::new(0));
    let tries = silent.clone();
    let mut queue = None;
    reconnect.on_retry(Box::new(move |told| {
        tries.store(told.tries, Ordering::Relaxed);
        queue.get_or_insert_with(|| FullQueue::at(address));
    }));
    let failure = fails(reconnect.connect(), ErrorKind::Refused);
    assert_eq!(silent.load(Ordering::Relaxed), 1, "the second try was not silent");
    let start = format!("connect to {address}: connection refused after 2 tries in ");
    assert!(failure.message.starts_with(&start), "{failure:?}");
}

/// After a long pause, earlier causes and attempts are not reported.
fn reconnect_after_pause_forgets_earlier_causes<A: Api>() {
    let address = later::<A>(26);
    let mut reconnect = A::reconnect(&address.to_string(), &[]).unwrap();
    reconnect.set_backoff(1, 1).unwrap();
    reconnect.set_limit(500).unwrap();
    fails(reconnect.connect(), ErrorKind::Refused);
    let _queue = FullQueue::at(address);
    // Longer than the last wait between two attempts.
    std::thread::sleep(Duration::from_millis(10));
    let failure = fails(reconnect.connect(), ErrorKind::TimedOut);
    assert!(failure.message.contains(": timed out after 1 try in "), "{failure:?}");
}

/// T2: a cancel during a later attempt ends the call. The attempts are counted.
fn cancel_during_attempt_ends_reconnect<A: Api>() {
    let (address, token) = (later::<A>(27), A::token());
    let from = format!("{}:0", A::own_address(28));
    let options = [Opt::Cancel(&token), Opt::Local(&from)];
    let mut reconnect = A::reconnect(&address.to_string(), &options).unwrap();
    reconnect.set_backoff(1, 20_000).unwrap();
    let (tell, told) = mpsc::channel();
    let mut queue = None;
    reconnect.on_retry(Box::new(move |_| {
        queue.get_or_insert_with(|| FullQueue::at(address));
        let _ = tell.send(());
    }));
    std::thread::scope(|scope| {
        let _fire = support::OnDrop(|| token.fire());
        let connecting = scope.spawn(|| reconnect.connect());
        told.recv_timeout(SOON).unwrap();
        support::eventually("the second try", || {
            support::system::sockets_bound_to(A::own_address(28).parse().unwrap()) > 0
        });
        token.fire();
        let failure = fails(connecting.join().unwrap(), ErrorKind::Cancelled);
        assert_eq!(failure.attempts.len(), 1);
        assert!(failure.message.contains(": cancelled after 2 tries in "), "{failure:?}");
    });
    // E1: a cancel is not a cause.
    token.reset();
    reconnect.set_limit(4000).unwrap();
    let failure = fails(reconnect.connect(), ErrorKind::Refused);
    assert!(failure.message.contains(" refused after 1 try in "), "{failure:?}");
}

/// T2: a cancel ends the call within 50 ms, also between attempts. The object remains usable.
fn cancel_during_wait_ends_reconnect<A: Api>() {
    let address = later::<A>(24).to_string();
    let token = A::token();
    let mut reconnect = A::reconnect(&address, &[Opt::Cancel(&token)]).unwrap();
    promptly(Duration::from_millis(50), || {
        let mut reconnect = A::reconnect(&address, &[Opt::Cancel(&token)]).unwrap();
        reconnect.set_backoff(NEVER, NEVER).unwrap();
        let told = listen_to::<A>(&mut reconnect);
        let (outcome, took) = while_waiting(
            || reconnect.connect(),
            || {
                told.recv_timeout(SOON).unwrap();
                token.fire();
            },
        );
        let failure = fails(outcome, ErrorKind::Cancelled);
        let start = format!(
            "connect to {address}: cancelled: the last try failed: connection refused after 1 try in "
        );
        assert!(failure.message.starts_with(&start), "{failure:?}");
        // The token stays fired, so no further attempt is made.
        reconnect.reset();
        fails(reconnect.connect(), ErrorKind::Cancelled);
        token.reset();
        took
    });
    reconnect.set_limit(INFINITE).unwrap();
    let _server = A::listen(&address, &[]).unwrap();
    reconnect.connect().unwrap();
}

/// T2: the retry callback may cancel.
fn cancel_in_retry_callback_ends_reconnect<A: Api>() {
    let token = Arc::new(A::token());
    let options = [Opt::Cancel(&*token)];
    let mut reconnect = A::reconnect(&refused_address().to_string(), &options).unwrap();
    reconnect.set_backoff(1, 1).unwrap();
    let mine = token.clone();
    reconnect.on_retry(Box::new(move |told| {
        if told.tries == 3 {
            mine.fire();
        }
    }));
    let failure = fails(reconnect.connect(), ErrorKind::Cancelled);
    assert!(failure.message.contains(" after 3 tries in "), "{failure:?}");
}

/// A permanent error is returned at once, as from an ordinary connect.
fn reconnect_with_permanent_error_fails_at_once<A: Api>() {
    let once = |endpoint: &str, options: &[Opt<'_, A>], kind| {
        let mut reconnect = A::reconnect(endpoint, options).unwrap();
        reconnect.set_backoff(NEVER, NEVER).unwrap();
        let told = listen_to::<A>(&mut reconnect);
        let failure = fails(reconnect.connect(), kind);
        assert!(told.try_recv().is_err(), "{failure:?}");
        assert!(!failure.message.contains(" tr"), "{failure:?}");
    };
    let refused = refused_address();
    for no_peer in ["127.0.0.1:0", "*:80", "0.0.0.0:80", "[::]:80", "224.0.0.1:80"] {
        let failure = fails(A::reconnect(no_peer, &[]), ErrorKind::InvalidEndpoint);
        assert!(
            failure.message.contains("is for") || failure.message.contains("cast"),
            "{failure:?}"
        );
    }
    once(&refused.to_string(), &[Opt::Interface("nosuchiface0")], ErrorKind::InvalidEndpoint);
    once("unix:/nowhere", &[Opt::Interface("lo")], ErrorKind::InvalidArgument);
    once(&refused.to_string(), &[Opt::Family(Family::Ipv6)], ErrorKind::NotFound);
    once(&refused.to_string(), &[Opt::Local("[::1]:0")], ErrorKind::AddressNotAvailable);
    let no_address = [Opt::Address(refused), Opt::Family(Family::Ipv6)];
    once("service.invalid:1", &no_address, ErrorKind::NotFound);
    let dir = TempDir::new();
    let _server = A::listen(&dir.endpoint("s"), &[]).unwrap();
    let mode = |mode| {
        let permissions: std::fs::Permissions =
            crate::support::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(dir.path("s"), permissions).unwrap();
    };
    mode(0);
    if A::connect(&dir.endpoint("s"), &[]).is_err() {
        once(&dir.endpoint("s"), &[], ErrorKind::PermissionDenied);
        // After an attempt with a transient error: the attempts are counted.
        std::fs::rename(dir.path("s"), dir.path("t")).unwrap();
        let mut reconnect = A::reconnect(&dir.endpoint("s"), &[]).unwrap();
        let (from, to) = (dir.path("t"), dir.path("s"));
        reconnect.on_retry(Box::new(move |_| std::fs::rename(&from, &to).unwrap()));
        let failure = fails(reconnect.connect(), ErrorKind::PermissionDenied);
        assert!(failure.message.contains("permission denied after 2 tries in "), "{failure:?}");
    } else {
        println!("skipped: permissions do not hold for this user");
    }
    assert!(A::reconnect("nonsense", &[]).is_err());
    let failure = A::reconnect("nonsense", &[]).err().unwrap();
    assert!(failure.is(ErrorKind::InvalidEndpoint) && &*failure.operation == "connect");
}

/// A server that accepts and closes at once gets fewer and fewer connects, although each one
/// succeeds. The control case resets the backoff after each connect.
fn reconnect_to_closing_server_waits_with_backoff<A: Api>() {
    const CONNECTS: usize = 9;
    let listener = TcpListener::bind((A::own_address(25), 0)).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let waits = |resets: bool| -> Vec<i64> {
        std::thread::scope(|scope| {
            scope.spawn(|| (0..CONNECTS).for_each(|_| drop(listener.accept().unwrap())));
            let mut reconnect = A::reconnect(&address, &[]).unwrap();
            reconnect.set_backoff(10, 20_000).unwrap();
            let told = listen_to::<A>(&mut reconnect);
            for _ in 0..CONNECTS {
                let client = reconnect.connect().unwrap();
                assert_eq!(client.read(&mut [0; 8]).unwrap_or(0), 0);
                if resets {
                    reconnect.reset();
                }
            }
            let told: Vec<_> = told.try_iter().collect();
            assert!(told.iter().all(|t| t.error.is_none() && t.tries == 0));
            told.iter().map(|t| t.wait_ms).collect()
        })
    };
    let random = waits(false);
    assert_eq!(random.len(), CONNECTS - 1);
    let limits = std::iter::successors(Some(10), |limit| Some(limit * 2));
    assert!(random.iter().zip(limits).all(|(wait, limit)| *wait <= limit), "{random:?}");
    // Without backoff no wait is longer than the first limit. With it, the probability that all are
    // shorter is 2 to the power of -28.
    assert!(random.iter().any(|wait| *wait > 10), "{random:?}");
    assert_eq!(waits(true), Vec::<i64>::new());
}

/// A value out of range is rejected, and changes nothing.
fn reconnect_with_value_out_of_range_fails<A: Api>() {
    let mut reconnect = A::reconnect(&refused_address().to_string(), &[]).unwrap();
    for (first, longest) in [(0, 1000), (100, 99), (1, NEVER + 1), (-1, 100), (100, -1)] {
        fails(reconnect.set_backoff(first, longest), ErrorKind::InvalidArgument);
    }
    fails(reconnect.set_limit(0), ErrorKind::InvalidArgument);
    for option in [Opt::ConnectTimeout(0), Opt::IdleTimeout(0)] {
        let failure = A::reconnect("127.0.0.1:1", &[option]).err().unwrap();
        assert!(failure.is(ErrorKind::InvalidArgument), "{failure:?}");
    }
    reconnect.set_backoff(1, NEVER).unwrap();
    reconnect.set_limit(20).unwrap();
    fails(reconnect.connect(), ErrorKind::Refused);
}

/// Waits as an event loop does that follows the reports. Returns the number of calls.
fn by_watch<A: Api>(reconnect: &mut A::Reconnect, waits: &Waits) -> (Outcome<A::Client>, usize) {
    for calls in 1.. {
        match reconnect.try_connect() {
            Ok(None) => waits.wait(),
            Ok(Some(client)) => {
                assert!(waits.are_over(), "something is watched after the end");
                return (Ok(client), calls);
            }
            Err(failure) => {
                assert!(waits.are_over(), "something is watched after the end");
                return (Err(failure), calls);
            }
        }
    }
    unreachable!()
}

/// C7, T4: an event loop reconnects without a thread. It waits through the backoff, and also after
/// the connection was lost.
fn try_connect_reaches_later_server_in_an_event_loop<A: Api>() {
    let dir = TempDir::new();
    for transport in support::TRANSPORTS {
        let endpoint = match transport {
            Transport::Tcp => later::<A>(29).to_string(),
            Transport::Unix => dir.endpoint("later"),
        };
        let mut reconnect = A::reconnect(&endpoint, &[Opt::CloseTimeout(0)]).unwrap();
        reconnect.set_backoff(5, 20).unwrap();
        assert_eq!(reconnect.next_timeout(), INFINITE);
        let waits = Waits::default();
        reconnect.set_watch(waits.watch());
        let told = listen_to::<A>(&mut reconnect);
        let mut tries = 0;
        while tries < 4 {
            assert!(reconnect.try_connect().unwrap().is_none());
            assert!((0..=20).contains(&reconnect.next_timeout()) || waits.descriptors() > 0);
            waits.wait();
            tries += told.try_iter().count();
        }
        let server = A::listen(&endpoint, &[]).unwrap();
        let (client, calls) = by_watch::<A>(&mut reconnect, &waits);
        let client = client.unwrap();
        assert!(calls <= 12, "{calls} calls");
        let accepted = server.accept().unwrap();
        accepted.write_all(b"hello\n").unwrap();
        assert_eq!(client.read_line(9).unwrap(), "hello");

        // The connection is lost: there is a delay before the next try.
        accepted.abort();
        drop(client);
        let _ = told.try_iter().count();
        let (client, _) = by_watch::<A>(&mut reconnect, &waits);
        client.unwrap();
        let first = told.try_recv().unwrap();
        assert!(first.error.is_none() && (0..=20).contains(&first.wait_ms), "{first:?}");
        server.accept().unwrap();
    }
}

/// C1, T2, E1: the timeout, the token and a permanent error end the connect in an event loop. A
/// reset ends a delay.
fn try_connect_keeps_timeout_token_and_permanent_errors<A: Api>() {
    let refused = refused_address().to_string();
    let waits = Waits::default();
    let mut reconnect = A::reconnect(&refused, &[]).unwrap();
    reconnect.set_watch(waits.watch());
    reconnect.set_backoff(1, 5).unwrap();
    reconnect.set_limit(60).unwrap();
    let (failure, _) = by_watch::<A>(&mut reconnect, &waits);
    let failure = fails(failure, ErrorKind::Refused);
    assert!(failure.message.contains(" tries in "), "{failure:?}");
    // A try that does not end.
    let queue = FullQueue::new();
    let mut slow = A::reconnect(&queue.endpoint(), &[]).unwrap();
    slow.set_watch(waits.watch());
    slow.set_limit(60).unwrap();
    let (failure, calls) = by_watch::<A>(&mut slow, &waits);
    fails(failure, ErrorKind::TimedOut);
    assert!(calls <= 4, "{calls} calls");

    let token = A::token();
    let waits = Waits::default();
    let mut reconnect = A::reconnect(&refused, &[Opt::Cancel(&token)]).unwrap();
    reconnect.set_watch(waits.watch());
    reconnect.set_backoff(NEVER, NEVER).unwrap();
    assert!(reconnect.try_connect().unwrap().is_none());
    while waits.descriptors() == 0 || waits.added() < 2 {
        assert!(reconnect.try_connect().unwrap().is_none());
        if reconnect.next_timeout() > 1000 {
            break;
        }
        waits.wait();
    }
    reconnect.reset();
    assert_eq!(reconnect.next_timeout(), 0, "the next try starts immediately");
    assert!(reconnect.try_connect().unwrap().is_none());
    token.fire();
    let (failure, _) = by_watch::<A>(&mut reconnect, &waits);
    fails(failure, ErrorKind::Cancelled);

    let waits = Waits::default();
    let unusable = [Opt::Interface("nosuchiface0")];
    let mut reconnect = A::reconnect(&refused, &unusable).unwrap();
    reconnect.set_watch(waits.watch());
    let (failure, calls) = by_watch::<A>(&mut reconnect, &waits);
    fails(failure, ErrorKind::InvalidEndpoint);
    assert_eq!(calls, 1);
    let local = [Opt::Local("name.invalid:0")];
    let failure = A::reconnect(&refused, &local).unwrap().try_connect();
    fails(failure, ErrorKind::InvalidArgument);
}

/// C1, T4: a timeout that is set or removed during a delay or a try applies to the connect in
/// progress.
fn try_connect_in_progress_gets_a_new_timeout<A: Api>() {
    let queue = FullQueue::new();
    for (endpoint, kind) in [
        (refused_address().to_string(), ErrorKind::Refused),
        (queue.endpoint(), ErrorKind::TimedOut),
    ] {
        let waits = Waits::default();
        let mut reconnect = A::reconnect(&endpoint, &[]).unwrap();
        reconnect.set_watch(waits.watch());
        reconnect.set_backoff(NEVER, NEVER).unwrap();
        reconnect.set_limit(60_000).unwrap();
        assert!(reconnect.try_connect().unwrap().is_none());
        let start = Instant::now();
        reconnect.set_limit(1).unwrap();
        let (failure, calls) = by_watch::<A>(&mut reconnect, &waits);
        fails(failure, kind);
        assert!(start.elapsed() < Duration::from_secs(30), "{endpoint}: {:?}", start.elapsed());
        assert!(calls <= 4, "{endpoint}: {calls} calls");
        // The call that is in progress would end at once.
        let mut reconnect = A::reconnect(&endpoint, &[]).unwrap();
        reconnect.set_backoff(NEVER, NEVER).unwrap();
        reconnect.set_limit(3_600_000).unwrap();
        assert!(reconnect.try_connect().unwrap().is_none());
        reconnect.set_limit(1).unwrap();
        reconnect.set_limit(INFINITE).unwrap();
        assert!(reconnect.try_connect().unwrap().is_none(), "{endpoint}");
    }
}

/// C7: dropping the object removes everything, during a try and during a delay.
fn try_connect_that_is_dropped_leaves_nothing_watched<A: Api>() {
    let queue = FullQueue::new();
    let token = A::token();
    for endpoint in [queue.endpoint(), refused_address().to_string()] {
        let waits = Waits::default();
        let mut reconnect = A::reconnect(&endpoint, &[Opt::Cancel(&token)]).unwrap();
        reconnect.set_watch(waits.watch());
        reconnect.set_backoff(NEVER, NEVER).unwrap();
        assert!(reconnect.try_connect().unwrap().is_none());
        assert!(waits.descriptors() > 0);
        drop(reconnect);
        assert!(waits.are_over());
    }
    // A second watch replaces the first one.
    let (first, second) = (Waits::default(), Waits::default());
    let mut reconnect = A::reconnect(&queue.endpoint(), &[]).unwrap();
    reconnect.set_watch(first.watch());
    assert!(reconnect.try_connect().unwrap().is_none());
    reconnect.set_watch(second.watch());
    assert!(first.are_over());
    assert_eq!(second.descriptors(), 1);
}
