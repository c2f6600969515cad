//! Connecting again: C1 (one limit for all tries and waits), T2 (a cancel ends a wait), E1
//! (the real cause, and how many tries), and a server that is not hammered.
#![cfg(target_os = "linux")]
// Generic functions are tests that Clippy does not know for such.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use common::{
    Api, Client, FullQueue, INFINITE, OnDrop, Opt, Reconnect, Server, TempDir, Token, Told,
    Transport, fails, promptly, refused_address, timed, while_waiting,
};
use keepsock::{ErrorKind, Family};

both_apis![
    a_server_that_comes_later,
    a_server_that_is_too_busy_at_first,
    every_option_is_applied_again,
    the_limit_is_kept,
    the_back_off_goes_on_from_call_to_call,
    a_try_that_was_cut_says_nothing,
    a_rest_is_a_new_start,
    a_cancel_ends_a_try,
    a_cancel_ends_a_wait,
    a_cancel_from_inside,
    errors_that_cannot_pass,
    a_closing_server_is_not_hammered,
    what_is_out_of_range,
];

/// A day: no second try will come.
const NEVER: i64 = 24 * 60 * 60 * 1000;

/// An address of this test's own, with a port where nothing listens yet.
fn later<A: Api>(test: u8) -> SocketAddr {
    TcpListener::bind((A::own_address(test), 0)).unwrap().local_addr().unwrap()
}

/// Sends on what is told.
fn listen_to<A: Api>(reconnect: &mut A::Reconnect) -> mpsc::Receiver<Told> {
    let (tell, told) = mpsc::channel();
    reconnect.on_retry(Box::new(move |t| {
        let _ = tell.send(t);
    }));
    told
}

const SOON: Duration = Duration::from_secs(10);

/// A server that is not there yet, TCP or Unix: tried again until it is, and each wait is told.
fn a_server_that_comes_later<A: Api>() {
    let dir = TempDir::new();
    for transport in common::TRANSPORTS {
        let (endpoint, kind) = match transport {
            Transport::Tcp => (later::<A>(20).to_string(), ErrorKind::Refused),
            Transport::Unix => (dir.endpoint("later"), ErrorKind::NotFound),
        };
        let mut reconnect = A::reconnect(&endpoint, &[]).unwrap();
        reconnect.set_back_off(5, 20).unwrap();
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
        // That is over: it is the connection that was lost.
        drop(told);
        let told = listen_to::<A>(&mut reconnect);
        let _server = A::listen(&endpoint, &[]).unwrap();
        reconnect.connect().unwrap();
        let first = told.try_recv().unwrap();
        assert!(first.error.is_none() && first.tries == 0, "{first:?}");
    }
}

/// C1: the options' connect timeout is for each try.
fn a_server_that_is_too_busy_at_first<A: Api>() {
    let queue = FullQueue::new();
    let mut reconnect = A::reconnect(&queue.endpoint(), &[Opt::ConnectTimeout(40)]).unwrap();
    reconnect.set_back_off(1, 1).unwrap();
    let told = listen_to::<A>(&mut reconnect);
    std::thread::scope(|scope| {
        let connecting = scope.spawn(|| reconnect.connect());
        for _ in 0..3 {
            let error = told.recv_timeout(SOON).unwrap().error.unwrap();
            assert!(error.is(ErrorKind::TimedOut), "{error:?}");
            assert!((40_000..1_000_000).contains(&error.attempts[0].elapsed_us), "{error:?}");
        }
        queue.make_room();
        connecting.join().unwrap().unwrap();
    });
}

/// Every connection is as the options ask, not only the first; and after a lost connection
/// there is a wait, which is told.
fn every_option_is_applied_again<A: Api>() {
    let address = later::<A>(21).to_string();
    let from = format!("{}:0", A::own_address(22));
    let options = [Opt::Keepalive(7000, 3000, 4), Opt::Nodelay(false), Opt::Local(&from)];
    let mut reconnect = A::reconnect(&address, &options).unwrap();
    reconnect.set_back_off(5, 30_000).unwrap();
    let told = listen_to::<A>(&mut reconnect);
    for n in 0..3 {
        let server = A::listen(&address, &[]).unwrap();
        let client = reconnect.connect().unwrap();
        assert_eq!(client.keepalive().unwrap(), Some((7000, 3000, 4)), "{n}");
        let nodelay =
            common::system::option(client.fd().unwrap(), libc::IPPROTO_TCP, libc::TCP_NODELAY);
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

/// C1, E1: back by the limit, in a try and between two; with the real cause, and how many tries
/// there were.
fn the_limit_is_kept<A: Api>() {
    let address = refused_address().to_string();
    promptly(Duration::from_millis(250), || {
        let mut reconnect = A::reconnect(&address, &[]).unwrap();
        reconnect.set_back_off(5, 20).unwrap();
        reconnect.set_limit(200).unwrap();
        let told = listen_to::<A>(&mut reconnect);
        let (outcome, took) = timed(|| reconnect.connect());
        let failure = fails(outcome, ErrorKind::Refused);
        assert!(took >= Duration::from_millis(200), "{took:?}");
        assert_eq!(failure.os_error, libc::ECONNREFUSED);
        assert_eq!((failure.operation.as_str(), failure.attempts.len()), ("connect", 1));
        // The last try of all may end when the limit is over; then there is no wait to tell of.
        let told = told.try_iter().count();
        assert!(told > 5, "{told}");
        let start =
            |tries| format!("connect to {address}: connection refused after {tries} tries in 2");
        let counted = [told, told + 1].iter().any(|n| failure.message.starts_with(&start(*n)));
        assert!(counted, "{failure:?}: {told}");
        took
    });
    // A server that does not answer: the try is cut, and there was no other.
    let queue = FullQueue::new();
    promptly(Duration::from_millis(250), || {
        let mut reconnect = A::reconnect(&queue.endpoint(), &[]).unwrap();
        reconnect.set_limit(200).unwrap();
        let (outcome, took) = timed(|| reconnect.connect());
        let failure = fails(outcome, ErrorKind::TimedOut);
        assert!(took >= Duration::from_millis(200), "{took:?}");
        let start = format!("connect to {}: timed out after 1 try in 2", queue.endpoint());
        assert!(failure.message.starts_with(&start), "{failure:?}");
        took
    });
}

/// A program that calls again at once waits for its turn, and does not spin: the limit is kept
/// here, too. A reset makes the next try at once.
fn the_back_off_goes_on_from_call_to_call<A: Api>() {
    let mut reconnect = A::reconnect(&refused_address().to_string(), &[]).unwrap();
    reconnect.set_back_off(NEVER, NEVER).unwrap();
    reconnect.set_limit(60).unwrap();
    let told = listen_to::<A>(&mut reconnect);
    for _ in 0..3 {
        let (outcome, took) = timed(|| reconnect.connect());
        let failure = fails(outcome, ErrorKind::Refused);
        assert!(took >= Duration::from_millis(60), "{took:?}");
        assert!(failure.message.contains("refused after 1 try in "), "{failure:?}");
        let told = told.try_recv().unwrap();
        assert!(told.tries == 1 && told.error.unwrap().is(ErrorKind::Refused));
    }
    reconnect.reset();
    let failure = fails(reconnect.connect(), ErrorKind::Refused);
    assert!(failure.message.contains("refused after 1 try in "), "{failure:?}");
    // A connection that was lost is no cause for an error; but the limit is.
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    let mut reconnect = A::reconnect(&server.endpoint(), &[]).unwrap();
    reconnect.set_back_off(NEVER, NEVER).unwrap();
    reconnect.set_limit(60).unwrap();
    drop(reconnect.connect().unwrap());
    let failure = fails(reconnect.connect(), ErrorKind::TimedOut);
    let start =
        format!("connect to {}: timed out: the next try is not due yet after ", server.endpoint());
    assert!(failure.message.starts_with(&start), "{failure:?}");
}

/// E1: a try that the limit cut short does not hide the cause that was met before it.
fn a_try_that_was_cut_says_nothing<A: Api>() {
    let address = later::<A>(23);
    let mut reconnect = A::reconnect(&address.to_string(), &[]).unwrap();
    reconnect.set_back_off(1, 1).unwrap();
    reconnect.set_limit(400).unwrap();
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

/// After a rest what was before is over: neither its cause nor its tries are reported.
fn a_rest_is_a_new_start<A: Api>() {
    let address = later::<A>(26);
    let mut reconnect = A::reconnect(&address.to_string(), &[]).unwrap();
    reconnect.set_back_off(1, 1).unwrap();
    reconnect.set_limit(40).unwrap();
    fails(reconnect.connect(), ErrorKind::Refused);
    let end = Instant::now();
    let _queue = FullQueue::at(address);
    assert!(end.elapsed() > Duration::from_millis(1), "no rest");
    let failure = fails(reconnect.connect(), ErrorKind::TimedOut);
    assert!(failure.message.contains(": timed out after 1 try in "), "{failure:?}");
}

/// T2: a cancel in a try that is not the first; the tries are counted.
fn a_cancel_ends_a_try<A: Api>() {
    let (address, token) = (later::<A>(27), A::token());
    let from = format!("{}:0", A::own_address(28));
    let options = [Opt::Cancel(&token), Opt::Local(&from)];
    let mut reconnect = A::reconnect(&address.to_string(), &options).unwrap();
    reconnect.set_back_off(1, 20_000).unwrap();
    let (tell, told) = mpsc::channel();
    let mut queue = None;
    reconnect.on_retry(Box::new(move |_| {
        queue.get_or_insert_with(|| FullQueue::at(address));
        let _ = tell.send(());
    }));
    std::thread::scope(|scope| {
        let connecting = scope.spawn(|| reconnect.connect());
        told.recv_timeout(SOON).unwrap();
        common::eventually("the second try", || {
            common::system::sockets_bound_to(A::own_address(28).parse().unwrap()) > 0
        });
        token.fire();
        let failure = fails(connecting.join().unwrap(), ErrorKind::Cancelled);
        assert_eq!(failure.attempts.len(), 1);
        assert!(failure.message.contains(": cancelled after 2 tries in "), "{failure:?}");
    });
    // E1: a cancel is not a cause either.
    token.reset();
    reconnect.set_limit(100).unwrap();
    let failure = fails(reconnect.connect(), ErrorKind::Refused);
    assert!(failure.message.contains(" refused after 3 tries in "), "{failure:?}");
}

/// T2: within 50 ms, as cancelled, also while nothing is being tried; and it can be used
/// afterwards.
fn a_cancel_ends_a_wait<A: Api>() {
    let address = later::<A>(24).to_string();
    let token = A::token();
    let mut reconnect = A::reconnect(&address, &[Opt::Cancel(&token)]).unwrap();
    promptly(Duration::from_millis(50), || {
        let mut reconnect = A::reconnect(&address, &[Opt::Cancel(&token)]).unwrap();
        reconnect.set_back_off(NEVER, NEVER).unwrap();
        let told = listen_to::<A>(&mut reconnect);
        let (outcome, took) = while_waiting(
            || reconnect.connect(),
            || {
                told.recv_timeout(SOON).unwrap();
                token.fire();
            },
        );
        let failure = fails(outcome, ErrorKind::Cancelled);
        let start =
            format!("connect to {address}: cancelled: so far connection refused after 1 try in ");
        assert!(failure.message.starts_with(&start), "{failure:?}");
        // It stays fired, and a try that would be due is not made either.
        reconnect.reset();
        fails(reconnect.connect(), ErrorKind::Cancelled);
        token.reset();
        took
    });
    reconnect.set_limit(INFINITE).unwrap();
    let _server = A::listen(&address, &[]).unwrap();
    reconnect.connect().unwrap();
}

/// T2: whoever is told may have enough.
fn a_cancel_from_inside<A: Api>() {
    let token = Arc::new(A::token());
    let options = [Opt::Cancel(&*token)];
    let mut reconnect = A::reconnect(&refused_address().to_string(), &options).unwrap();
    reconnect.set_back_off(1, 1).unwrap();
    let mine = token.clone();
    reconnect.on_retry(Box::new(move |told| {
        if told.tries == 3 {
            mine.fire();
        }
    }));
    let failure = fails(reconnect.connect(), ErrorKind::Cancelled);
    assert!(failure.message.contains(" after 3 tries in "), "{failure:?}");
}

/// What trying again cannot mend is returned at once, as an ordinary connect's.
fn errors_that_cannot_pass<A: Api>() {
    let once = |endpoint: &str, options: &[Opt<'_, A>], kind| {
        let mut reconnect = A::reconnect(endpoint, options).unwrap();
        reconnect.set_back_off(NEVER, NEVER).unwrap();
        let told = listen_to::<A>(&mut reconnect);
        let failure = fails(reconnect.connect(), kind);
        assert!(told.try_recv().is_err(), "{failure:?}");
        assert!(!failure.message.contains(" tr"), "{failure:?}");
    };
    let refused = refused_address();
    once("127.0.0.1:0", &[], ErrorKind::InvalidEndpoint);
    once("*:80", &[], ErrorKind::InvalidEndpoint);
    once(&refused.to_string(), &[Opt::Interface("nosuchiface0")], ErrorKind::InvalidEndpoint);
    once("unix:/nowhere", &[Opt::Interface("lo")], ErrorKind::InvalidArgument);
    once(&refused.to_string(), &[Opt::Family(Family::Ipv6)], ErrorKind::NotFound);
    once(&refused.to_string(), &[Opt::Local("[::1]:0")], ErrorKind::AddressNotAvailable);
    let no_address = [Opt::Address(refused), Opt::Family(Family::Ipv6)];
    once("service.invalid:1", &no_address, ErrorKind::NotFound);
    let dir = TempDir::new();
    let _server = A::listen(&dir.endpoint("s"), &[]).unwrap();
    let mode = |mode| {
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(dir.path("s"), permissions).unwrap();
    };
    mode(0);
    if A::connect(&dir.endpoint("s"), &[]).is_err() {
        once(&dir.endpoint("s"), &[], ErrorKind::PermissionDenied);
        // After a try that could pass: they are counted.
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
    assert!(failure.is(ErrorKind::InvalidEndpoint) && failure.operation == "connect");
}

/// A server that accepts and closes at once is asked less and less often, though each connect
/// succeeds. The control: with a reset after each, it is asked all the time.
fn a_closing_server_is_not_hammered<A: Api>() {
    let listener = TcpListener::bind((A::own_address(25), 0)).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let accepted = AtomicU32::new(0);
    let done = AtomicBool::new(false);
    let second = Duration::from_secs(1);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                drop(listener.accept().unwrap());
                accepted.fetch_add(1, Ordering::Relaxed);
            }
        });
        let _end = OnDrop(|| {
            done.store(true, Ordering::Relaxed);
            drop(std::net::TcpStream::connect(&address));
        });
        let sessions = |resets: bool| {
            let mut reconnect = A::reconnect(&address, &[]).unwrap();
            reconnect.set_back_off(10, 20_000).unwrap();
            let told = listen_to::<A>(&mut reconnect);
            let start = Instant::now();
            let before = accepted.load(Ordering::Relaxed);
            while let Some(left) = second.checked_sub(start.elapsed()).filter(|l| !l.is_zero()) {
                let left = i64::try_from(left.as_millis()).unwrap().max(1);
                reconnect.set_limit(left).unwrap();
                match reconnect.connect() {
                    Ok(client) => assert_eq!(client.read(&mut [0; 8]).unwrap_or(0), 0),
                    Err(failure) => assert!(failure.is(ErrorKind::TimedOut), "{failure:?}"),
                }
                if resets {
                    reconnect.reset();
                }
            }
            assert!(told.try_iter().all(|t| t.error.is_none() && t.tries == 0));
            accepted.load(Ordering::Relaxed) - before
        };
        // Bounds of 10, 20, 40 … ms: the eighth wait alone is 640 ms in the mean.
        let asked = sessions(false);
        assert!((3..=20).contains(&asked), "{asked} times in a second");
        let asked = sessions(true);
        assert!(asked > 60, "{asked} times in a second");
    });
}

/// What cannot be meant is refused, and changes nothing.
fn what_is_out_of_range<A: Api>() {
    let mut reconnect = A::reconnect(&refused_address().to_string(), &[]).unwrap();
    for (first, longest) in [(0, 1000), (100, 99), (1, NEVER + 1), (-1, 100), (100, -1)] {
        fails(reconnect.set_back_off(first, longest), ErrorKind::InvalidArgument);
    }
    fails(reconnect.set_limit(0), ErrorKind::InvalidArgument);
    for option in [Opt::ConnectTimeout(0), Opt::IdleLimit(0)] {
        let failure = A::reconnect("127.0.0.1:1", &[option]).err().unwrap();
        assert!(failure.is(ErrorKind::InvalidArgument), "{failure:?}");
    }
    reconnect.set_back_off(1, NEVER).unwrap();
    reconnect.set_limit(20).unwrap();
    fails(reconnect.connect(), ErrorKind::Refused);
}
