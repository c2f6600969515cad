//! T4, C1, C2, C3: a connect that the caller waits for.

use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use crate::event_loop::Waits;
use crate::support;
use crate::support::libc;
use crate::support::{
    Api, Client, FullQueue, INFINITE, OnDrop, Opt, Outcome, PendingConnect, Reconnect, Server,
    TempDir, Token, Transport, fails, limits, pair, process, refused_address, somewhere, system,
};
use keepsock::{ErrorKind, TcpState};

both_apis![
    pending_connect_finishes_with_a_client,
    pending_connect_by_name_finishes,
    pending_connect_descriptor_reports_later_attempts,
    pending_connect_deadline_makes_descriptor_readable,
    pending_connect_cancel_makes_descriptor_readable,
    pending_connect_that_is_refused_fails_in_finish,
    pending_connect_report_lists_other_attempts,
    pending_connect_attempts_are_in_syn_sent,
    pending_connect_to_full_unix_queue_does_not_block,
    pending_connect_wait_keeps_the_deadline,
    pending_connect_after_finish_rejects_calls,
    pending_connect_that_is_dropped_leaves_no_descriptor,
    pending_connect_with_local_name_is_rejected,
    pending_connect_delays_the_next_attempt,
    pending_connect_with_a_long_timeout_returns_at_most_an_int,
    pending_connect_socket_is_that_of_the_connection,
    pending_connect_socket_of_failed_connect_stays_open,
    pending_connect_socket_is_not_writable_before_the_end,
    pending_connect_socket_without_one_fails,
    pending_connect_costs_few_system_calls,
    pending_connect_timeout_covers_token_and_result,
    pending_connect_reports_the_timeout_after_each_call,
    pending_connect_watch_reports_what_to_wait_for,
    pending_connect_watch_removes_all_when_dropped,
    pending_connect_watch_replaces_the_watch_before,
];

/// Waits as an event loop does: for the descriptor only.
fn by_descriptor<A: Api>(connecting: &mut A::PendingConnect) -> Outcome<A::Client> {
    let fd = connecting.fd().unwrap();
    loop {
        if let Some(client) = connecting.finish()? {
            return Ok(client);
        }
        assert!(system::becomes_readable(fd, 60_000), "not readable within 60 s");
    }
}

/// T4: on both transports the connect finishes with a usable client.
fn pending_connect_finishes_with_a_client<A: Api>() {
    for transport in support::TRANSPORTS {
        let (endpoint, _dir) = somewhere(transport);
        let server = A::listen(&endpoint, &[Opt::CloseTimeout(0)]).unwrap();
        let mut options = vec![Opt::CloseTimeout(0)];
        if transport == Transport::Tcp {
            options.push(Opt::Keepalive(7000, 2000, 3));
        }
        let mut connecting = A::start(&server.endpoint(), &options).unwrap();
        let client = by_descriptor::<A>(&mut connecting).unwrap();
        drop(connecting);
        let accepted = server.accept().unwrap();
        client.write_all(b"hello\n").unwrap();
        assert_eq!(accepted.read_line(10).unwrap(), "hello");
        if transport == Transport::Tcp {
            assert_eq!(client.keepalive().unwrap(), Some((7000, 2000, 3)));
            assert!(!system::is_nonblocking(client.fd().unwrap()));
        }
    }
}

/// T4: the descriptor also reports the end of the lookup.
fn pending_connect_by_name_finishes<A: Api>() {
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    let endpoint = format!("localhost:{}", server.port());
    let options = [Opt::Family(keepsock::Family::Ipv4)];
    let mut connecting = A::start(&endpoint, &options).unwrap();
    by_descriptor::<A>(&mut connecting).unwrap();
    let mut connecting = A::start("127.0.0.1:no-such-service", &[]).unwrap();
    let failure = by_descriptor::<A>(&mut connecting).err().unwrap();
    assert!(failure.is(ErrorKind::NotFound), "{failure:?}");
}

/// T4, C2: the same descriptor reports attempts that start later.
fn pending_connect_descriptor_reports_later_attempts<A: Api>() {
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    let queues = [FullQueue::new(), FullQueue::new()];
    let mut options: Vec<_> =
        queues.iter().map(|queue| Opt::Address(queue.endpoint().parse().unwrap())).collect();
    options.push(Opt::Address(server.endpoint().parse().unwrap()));
    options.push(Opt::AttemptDelay(40));
    let start = Instant::now();
    let mut connecting = A::start("service:80", &options).unwrap();
    let client = by_descriptor::<A>(&mut connecting).unwrap();
    assert_eq!(client.five_tuple().remote.1, server.port());
    assert!(start.elapsed() >= Duration::from_millis(80), "{:?}", start.elapsed());
}

/// T4, C1: the descriptor is readable when the deadline passes.
fn pending_connect_deadline_makes_descriptor_readable<A: Api>() {
    let queue = FullQueue::new();
    support::promptly(Duration::from_millis(250), || {
        let options = [Opt::ConnectTimeout(200)];
        let start = Instant::now();
        let mut connecting = A::start(&queue.endpoint(), &options).unwrap();
        let failure = by_descriptor::<A>(&mut connecting).err().unwrap();
        assert!(failure.is(ErrorKind::TimedOut), "{failure:?}");
        assert_eq!(failure.attempts.len(), 1);
        assert!(start.elapsed() >= Duration::from_millis(195), "{:?}", start.elapsed());
        start.elapsed()
    });
}

/// T4, T2: the descriptor is readable when the token fires.
fn pending_connect_cancel_makes_descriptor_readable<A: Api>() {
    let (queue, token) = (FullQueue::new(), A::token());
    let mut connecting = A::start(&queue.endpoint(), &[Opt::Cancel(&token)]).unwrap();
    assert!(connecting.finish().unwrap().is_none());
    thread::scope(|scope| {
        let _fire = OnDrop(|| token.fire());
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(50));
            token.fire();
        });
        let failure = by_descriptor::<A>(&mut connecting).err().unwrap();
        assert!(failure.is(ErrorKind::Cancelled), "{failure:?}");
    });
    // The token was fired before.
    let started = A::start(&queue.endpoint(), &[Opt::Cancel(&token)]);
    fails(started.and_then(|mut connecting| connecting.wait()), ErrorKind::Cancelled);
}

/// T4, C3: finish reports a refused connect. start does not, however early the error is known.
fn pending_connect_that_is_refused_fails_in_finish<A: Api>() {
    let mut connecting = A::start(&refused_address().to_string(), &[]).unwrap();
    let failure = by_descriptor::<A>(&mut connecting).err().unwrap();
    assert!(failure.is(ErrorKind::Refused), "{failure:?}");
    assert_eq!(failure.attempts.len(), 1);
    assert_eq!(connecting.attempts(), failure.attempts.to_vec());
}

/// C3: the report lists the failed attempts, and the slower ones.
fn pending_connect_report_lists_other_attempts<A: Api>() {
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    let (refused, queue) = (refused_address(), FullQueue::new());
    let options = [
        Opt::Address(refused),
        Opt::Address(queue.endpoint().parse().unwrap()),
        Opt::Address(server.endpoint().parse().unwrap()),
        Opt::AttemptDelay(40),
    ];
    let mut connecting = A::start("service:80", &options).unwrap();
    connecting.wait().unwrap();
    let report = connecting.attempts();
    let told: Vec<_> = report.iter().map(|t| (t.address.as_str(), t.status)).collect();
    let (refused, queue) = (refused.to_string(), queue.endpoint());
    let expected = [(&*refused, ErrorKind::Refused.code()), (&*queue, ErrorKind::Closed.code())];
    assert_eq!(told, expected);
    assert!(report[1].elapsed_us >= 39_000, "{report:?}");
    // An empty report.
    let mut connecting = A::start(&server.endpoint(), &[]).unwrap();
    connecting.wait().unwrap();
    assert_eq!(connecting.attempts(), []);
}

/// S5, C7: an attempt in progress is in the state SYN-SENT, and its duration is the time since its
/// start.
fn pending_connect_attempts_are_in_syn_sent<A: Api>() {
    let queue = FullQueue::new();
    let mut connecting = A::start(&queue.endpoint(), &[]).unwrap();
    assert!(connecting.finish().unwrap().is_none());
    let before = Instant::now();
    std::thread::sleep(Duration::from_millis(20));
    let attempts = connecting.attempts_in_progress();
    let [(endpoint, state, elapsed)] = &attempts[..] else {
        panic!("{attempts:?}");
    };
    assert_eq!((endpoint, *state), (&queue.endpoint(), TcpState::SynSent as i32));
    assert!(*elapsed >= 20_000, "{elapsed}");
    assert!(u128::try_from(*elapsed).unwrap() <= before.elapsed().as_micros() + 10_000_000);
    queue.make_room();
    by_descriptor::<A>(&mut connecting).unwrap();
    assert_eq!(connecting.attempts_in_progress(), []);
}

/// C1: wait keeps the deadline as the blocking connect does.
fn pending_connect_wait_keeps_the_deadline<A: Api>() {
    let queue = FullQueue::new();
    support::promptly(Duration::from_millis(250), || {
        let mut connecting = A::start(&queue.endpoint(), &[Opt::ConnectTimeout(200)]).unwrap();
        let timeout = connecting.timeout();
        assert!((0..=200).contains(&timeout), "{timeout}");
        let (outcome, time) = support::timed(|| connecting.wait());
        fails(outcome, ErrorKind::TimedOut);
        time
    });
    let mut connecting = A::start(&queue.endpoint(), &[Opt::ConnectTimeout(INFINITE)]).unwrap();
    assert_eq!(connecting.timeout(), INFINITE);
}

/// T4, C1, C4: finish retries a full Unix queue when the descriptor is readable.
fn pending_connect_to_full_unix_queue_does_not_block<A: Api>() {
    let dir = TempDir::new();
    let endpoint = dir.endpoint("s");
    let server = A::listen(&endpoint, &[Opt::Backlog(1)]).unwrap();
    let waiting = support::fill_queue(&dir.path("s"));

    support::promptly(Duration::from_millis(150), || {
        let start = Instant::now();
        let mut connecting = A::start(&endpoint, &[Opt::ConnectTimeout(20_000)]).unwrap();
        assert!(connecting.finish().unwrap().is_none());
        assert!((0..=20).contains(&connecting.timeout()), "{}", connecting.timeout());
        assert_eq!(connecting.attempts_in_progress().len(), 1);
        start.elapsed()
    });

    let mut connecting = A::start(&endpoint, &[Opt::ConnectTimeout(100)]).unwrap();
    let failure = by_descriptor::<A>(&mut connecting).err().unwrap();
    assert!(failure.is(ErrorKind::TimedOut), "{failure:?}");
    assert_eq!(failure.attempts.len(), 1);

    let mut connecting = A::start(&endpoint, &[Opt::ConnectTimeout(20_000)]).unwrap();
    assert!(connecting.finish().unwrap().is_none());
    drop(server.accept().unwrap());
    by_descriptor::<A>(&mut connecting).unwrap();
    drop(waiting);
}

/// E2: a connect that has finished rejects further calls.
fn pending_connect_after_finish_rejects_calls<A: Api>() {
    let p = pair::<A>(Transport::Tcp);
    let mut connecting = A::start(&p.server.endpoint(), &[]).unwrap();
    connecting.wait().unwrap();
    fails(connecting.finish(), ErrorKind::WrongState);
    fails(connecting.wait(), ErrorKind::WrongState);
    assert_eq!(connecting.timeout(), INFINITE, "there is nothing to wait for");
    fails(connecting.fd(), ErrorKind::WrongState);
}

/// C2: a dropped connect leaves no descriptor. (tests/netns/cancelled_races.rs checks threads and
/// memory.)
fn pending_connect_that_is_dropped_leaves_no_descriptor<A: Api>() {
    let queue = FullQueue::new();
    let address = A::own_address(77);
    let local = format!("{address}:0");
    let mut connecting = A::start(&queue.endpoint(), &[Opt::Local(&local)]).unwrap();
    assert!(connecting.finish().unwrap().is_none());
    let fd = connecting.fd().unwrap();
    assert_eq!(system::sockets_bound_to(address.parse().unwrap()), 1);
    drop(connecting);
    assert_eq!(system::sockets_bound_to(address.parse().unwrap()), 0);
    let _ = fd;
}

fn pending_connect_with_local_name_is_rejected<A: Api>() {
    let failure = fails(
        A::start("127.0.0.1:80", &[Opt::Local("name.invalid:0")]),
        ErrorKind::InvalidArgument,
    );
    assert!(failure.message.contains("local_endpoint is a name"), "{failure:?}");
}

/// C2: the delay between two attempts is within the limits of the RFC, and takes effect.
fn pending_connect_delays_the_next_attempt<A: Api>() {
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    for ms in [0, 9, 2001, i64::MAX] {
        fails(A::connect(&server.endpoint(), &[Opt::AttemptDelay(ms)]), ErrorKind::InvalidArgument);
    }
    let queue = FullQueue::new();
    for delay in [10, 120] {
        let options = [
            Opt::Address(queue.endpoint().parse().unwrap()),
            Opt::Address(server.endpoint().parse().unwrap()),
            Opt::AttemptDelay(delay),
        ];
        let most = Duration::from_millis(delay as u64 + 60);
        support::promptly(most, || {
            let (client, time) = support::timed(|| A::connect("service:80", &options));
            client.unwrap();
            assert!(time >= Duration::from_millis(delay as u64), "{time:?}");
            time
        });
    }
}

/// T4: the time until the next call fits an int, which poll(2) takes.
fn pending_connect_with_a_long_timeout_returns_at_most_an_int<A: Api>() {
    let queue = FullQueue::new();
    for timeout in [i64::MAX, i64::from(i32::MAX) + 60_000] {
        let options = [Opt::ConnectTimeout(timeout)];
        let mut connecting = A::start(&queue.endpoint(), &options).unwrap();
        assert_eq!(connecting.timeout(), i64::from(i32::MAX));
    }
}

/// Waits as an event loop does that has one descriptor for each connection. Returns also the number
/// of calls of finish.
fn by_socket<A: Api>(connecting: &mut A::PendingConnect) -> (Outcome<A::Client>, usize) {
    let socket = connecting.socket().unwrap();
    for calls in 1.. {
        let timeout = i32::try_from(connecting.timeout()).unwrap();
        system::poll(&[(socket, libc::POLLOUT)], timeout);
        assert_eq!(connecting.socket().unwrap(), socket);
        match connecting.finish() {
            Ok(None) => {}
            Ok(Some(client)) => return (Ok(client), calls),
            Err(failure) => return (Err(failure), calls),
        }
    }
    unreachable!()
}

/// C7: for an address and for a Unix path the descriptor given at the start is the connection's.
fn pending_connect_socket_is_that_of_the_connection<A: Api>() {
    for transport in support::TRANSPORTS {
        let (endpoint, _dir) = somewhere(transport);
        let server = A::listen(&endpoint, &[Opt::CloseTimeout(0)]).unwrap();
        let mut connecting = A::start(&server.endpoint(), &[]).unwrap();
        let socket = connecting.socket().unwrap();
        let (client, calls) = by_socket::<A>(&mut connecting);
        let client = client.unwrap();
        assert_eq!((client.fd().unwrap(), calls), (socket, 1));
        let failure = fails(connecting.socket(), ErrorKind::WrongState);
        assert!(failure.message.contains("the connect has finished"), "{failure:?}");
        drop(connecting);
        client.write_all(b"hello\n").unwrap();
        assert_eq!(server.accept().unwrap().read_line(10).unwrap(), "hello");
    }
    // The handshake needs more than one step.
    let queue = FullQueue::new();
    let mut connecting = A::start(&queue.endpoint(), &[]).unwrap();
    let socket = connecting.socket().unwrap();
    queue.make_room();
    let (client, _) = by_socket::<A>(&mut connecting);
    assert_eq!(client.unwrap().fd().unwrap(), socket);
}

/// C7: a failed connect makes the descriptor writable. It stays open, so that an event loop can
/// remove it, until the object is dropped.
fn pending_connect_socket_of_failed_connect_stays_open<A: Api>() {
    let dir = TempDir::new();
    for endpoint in [refused_address().to_string(), dir.endpoint("none")] {
        let mut connecting = A::start(&endpoint, &[]).unwrap();
        let socket = connecting.socket().unwrap();
        let (failure, calls) = by_socket::<A>(&mut connecting);
        let failure = failure.map(drop).unwrap_err();
        assert!(failure.is(ErrorKind::Refused) || failure.is(ErrorKind::NotFound), "{failure:?}");
        assert_eq!((calls, failure.attempts.len()), (1, 1));
        let identity = system::identity(socket);
        assert!(identity.is_some());
        drop(connecting);
        assert_ne!(system::identity(socket), identity);
    }
}

/// C7, C1: while the handshake is in progress, a loop with one descriptor does not spin, and the
/// connect ends at its deadline.
fn pending_connect_socket_is_not_writable_before_the_end<A: Api>() {
    let queue = FullQueue::new();
    let start = Instant::now();
    let mut connecting = A::start(&queue.endpoint(), &[Opt::ConnectTimeout(200)]).unwrap();
    let (failure, calls) = by_socket::<A>(&mut connecting);
    fails(failure, ErrorKind::TimedOut);
    assert!(start.elapsed() >= Duration::from_millis(200), "{:?}", start.elapsed());
    // poll(2) may return early by a fraction of a millisecond.
    assert!(calls <= 3, "{calls} calls");
}

/// C7: several addresses have several sockets. A full Unix queue has none that can be polled.
fn pending_connect_socket_without_one_fails<A: Api>() {
    let (one, other) = (FullQueue::new(), FullQueue::new());
    let both = [&one, &other].map(|queue| Opt::Address(queue.endpoint().parse().unwrap()));
    let mut connecting = A::start("service:80", &both).unwrap();
    fails(connecting.socket(), ErrorKind::WrongState);
    let mut connecting = A::start("127.0.0.1:no-such-service", &[]).unwrap();
    fails(connecting.socket(), ErrorKind::WrongState);
    let only_ipv6 = [Opt::Family(keepsock::Family::Ipv6)];
    if let Ok(mut connecting) = A::start("127.0.0.1:80", &only_ipv6) {
        let failure = fails(connecting.socket(), ErrorKind::WrongState);
        assert!(failure.message.contains("the connect has failed"), "{failure:?}");
        fails(connecting.finish(), ErrorKind::NotFound);
    }

    let dir = TempDir::new();
    let server = A::listen(&dir.endpoint("s"), &[Opt::Backlog(1)]).unwrap();
    let _waiting = support::fill_queue(&dir.path("s"));
    let mut connecting = A::start(&dir.endpoint("s"), &[]).unwrap();
    fails(connecting.socket(), ErrorKind::WouldBlock);
    drop(server.accept().unwrap());
    assert!(connecting.wait().is_ok());
}

/// C7, T2: a loop that watches the socket alone calls finish in time after the token was fired, and at
/// once if there is a result.
fn pending_connect_timeout_covers_token_and_result<A: Api>() {
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    for endpoint in [server.endpoint(), refused_address().to_string()] {
        let mut connecting = A::start(&endpoint, &[]).unwrap();
        assert_eq!(connecting.timeout(), 0);
        let _ = connecting.finish();
        assert_eq!(connecting.timeout(), INFINITE);
    }
    let (queue, token) = (FullQueue::new(), A::token());
    let options = [Opt::Cancel(&token), Opt::ConnectTimeout(INFINITE)];
    let mut connecting = A::start(&queue.endpoint(), &options).unwrap();
    assert!((0..=25).contains(&connecting.timeout()), "{}", connecting.timeout());
    token.fire();
    let (failure, _) = by_socket::<A>(&mut connecting);
    fails(failure, ErrorKind::Cancelled);
    token.reset();
    let mut connecting = A::start(&queue.endpoint(), &options).unwrap();
    let waits = Waits::default();
    connecting.set_watch(waits.watch()).unwrap();
    assert_eq!(connecting.timeout(), INFINITE, "the descriptor of the token is watched");
    assert_eq!(waits.timeout(), Some(INFINITE));
    // A reconnect object during a delay.
    let refused = refused_address().to_string();
    let mut reconnect = A::reconnect(&refused, &[Opt::Cancel(&token)]).unwrap();
    reconnect.set_backoff(3_600_000, 3_600_000).unwrap();
    for _ in 0..2 {
        assert!(reconnect.try_connect().unwrap().is_none());
    }
    assert!((0..=25).contains(&reconnect.next_timeout()), "{}", reconnect.next_timeout());
    token.fire();
    fails(reconnect.try_connect(), ErrorKind::Cancelled);
}

/// C7: a one-shot timer that expired too early is set again.
fn pending_connect_reports_the_timeout_after_each_call<A: Api>() {
    let queue = FullQueue::new();
    let waits = Waits::default();
    let mut connecting = A::start(&queue.endpoint(), &[]).unwrap();
    connecting.set_watch(waits.watch()).unwrap();
    for reports in 1..=3 {
        assert_eq!(waits.timeouts(), reports);
        assert!(connecting.finish().unwrap().is_none());
    }
    let waits = Waits::default();
    let mut reconnect = A::reconnect(&refused_address().to_string(), &[]).unwrap();
    reconnect.set_watch(waits.watch());
    reconnect.set_backoff(3_600_000, 3_600_000).unwrap();
    while reconnect.next_timeout() < 1000 {
        assert!(reconnect.try_connect().unwrap().is_none());
        reconnect.reset();
        assert!(reconnect.try_connect().unwrap().is_none());
    }
    let reported = waits.timeouts();
    assert!(reconnect.try_connect().unwrap().is_none());
    assert_eq!(waits.timeouts(), reported + 1);
    // A shorter backoff also shortens the delay in progress.
    reconnect.set_backoff(1, 1).unwrap();
    assert!((0..=1).contains(&reconnect.next_timeout()), "{}", reconnect.next_timeout());
}

/// C7: a connect in a foreign loop, from the start to the connection, costs at most 4 system calls
/// more than a plain non-blocking connect with the same options.
fn pending_connect_costs_few_system_calls<A: Api>() {
    process::in_process(
        &test_name!(A, "pending_connect_costs_few_system_calls"),
        Duration::from_secs(60),
        || {
            let server = A::listen("127.0.0.1:0", &[]).unwrap();
            let address = server.endpoint();
            let calls = limits::count_calls();
            let counted = |connect: &dyn Fn()| {
                let before = calls.load(Ordering::Acquire);
                connect();
                calls.load(Ordering::Acquire) - before
            };
            let plain = counted(&|| system::plain_connect(address.parse().unwrap()));
            assert_eq!(plain, 9, "socket, 5 setsockopt, connect, poll, getsockopt");
            // The close is not counted.
            let connected = std::cell::OnceCell::new();
            let ours = counted(&|| {
                let mut connecting = A::start(&address, &[]).unwrap();
                let socket = connecting.socket().unwrap();
                system::poll(&[(socket, libc::POLLOUT)], 10_000);
                let client = connecting.finish().unwrap().expect("is established");
                assert!(connected.set(client).is_ok());
            });
            assert!(ours <= plain + 4, "{ours} system calls, {plain} of a plain connect");
            println!("{ours} system calls, {plain} of a plain connect");
        },
    );
}

/// Waits as an event loop does that follows the reports. Returns the number of calls of finish, and
/// of descriptors.
fn by_watch<A: Api>(endpoint: &str, options: &[Opt<'_, A>]) -> (Outcome<A::Client>, usize, usize) {
    let waits = Waits::default();
    let mut connecting = A::start(endpoint, options).unwrap();
    connecting.set_watch(waits.watch()).unwrap();
    for calls in 1.. {
        waits.wait();
        let outcome = match connecting.finish() {
            Ok(None) => continue,
            Ok(Some(client)) => Ok(client),
            Err(failure) => Err(failure),
        };
        assert!(waits.are_over(), "something is watched after the end");
        let added = waits.added();
        fails(connecting.set_watch(Waits::default().watch()), ErrorKind::WrongState);
        return (outcome, calls, added);
    }
    unreachable!()
}

/// C7, C1, C2: a loop that follows the reports connects by addresses that race and by name, and
/// learns of the deadline, of a refused attempt and of the token, without spinning.
fn pending_connect_watch_reports_what_to_wait_for<A: Api>() {
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    let live: std::net::SocketAddr = server.endpoint().parse().unwrap();
    let (one, other) = (FullQueue::new(), FullQueue::new());
    let dead = |queue: &FullQueue| Opt::Address(queue.endpoint().parse().unwrap());

    // The first addresses do not answer.
    let options = [dead(&one), dead(&other), Opt::Address(live), Opt::AttemptDelay(40)];
    let (client, calls, added) = by_watch::<A>("service:80", &options);
    assert_eq!(client.unwrap().five_tuple().remote.1, server.port());
    assert!(calls <= 8 && (2..=3).contains(&added), "{calls} calls, {added} descriptors");

    // The first address refuses.
    let options = [Opt::Address(refused_address()), dead(&one), Opt::Address(live)];
    let (client, calls, _) = by_watch::<A>("service:80", &options);
    client.unwrap();
    assert!(calls <= 8, "{calls} calls");

    // A lookup in a thread.
    let (failure, _, _) = by_watch::<A>("127.0.0.1:no-such-service", &[]);
    fails(failure, ErrorKind::NotFound);
    let (client, _, _) = by_watch::<A>(&format!("localhost:{}", server.port()), &[]);
    client.unwrap();

    // One address, refused, and in a Unix queue that is full until the deadline.
    let (failure, _, _) = by_watch::<A>(&refused_address().to_string(), &[]);
    fails(failure, ErrorKind::Refused);
    let (client, calls, _) = by_watch::<A>(&server.endpoint(), &[]);
    client.unwrap();
    assert_eq!(calls, 1);
    let dir = TempDir::new();
    let _full = A::listen(&dir.endpoint("s"), &[Opt::Backlog(1)]).unwrap();
    let _waiting = support::fill_queue(&dir.path("s"));
    let (failure, calls, _) = by_watch::<A>(&dir.endpoint("s"), &[Opt::ConnectTimeout(200)]);
    fails(failure, ErrorKind::TimedOut);
    assert!(calls <= 40, "{calls} calls");

    // The token.
    let token = A::token();
    thread::scope(|scope| {
        let _fire = OnDrop(|| token.fire());
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(30));
            token.fire();
        });
        let options = [Opt::Cancel(&token), Opt::ConnectTimeout(INFINITE)];
        let (failure, calls, added) = by_watch::<A>(&one.endpoint(), &options);
        fails(failure, ErrorKind::Cancelled);
        assert!(calls <= 3 && added == 2, "{calls} calls, {added} descriptors");
    });
}

/// C7: dropping the object removes everything before it closes the sockets.
fn pending_connect_watch_removes_all_when_dropped<A: Api>() {
    let (one, other, token) = (FullQueue::new(), FullQueue::new(), A::token());
    let waits = Waits::default();
    let mut options: Vec<_> =
        [&one, &other].map(|q| Opt::Address(q.endpoint().parse().unwrap())).into();
    options.extend([Opt::AttemptDelay(20), Opt::Cancel(&token)]);
    let mut connecting = A::start("service:80", &options).unwrap();
    connecting.set_watch(waits.watch()).unwrap();
    while waits.descriptors() < 3 {
        waits.wait();
        assert!(connecting.finish().unwrap().is_none());
    }
    drop(connecting);
    assert!(waits.are_over());
    // An established connection that the program has not taken.
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    let waits = Waits::default();
    let mut connecting = A::start(&server.endpoint(), &[]).unwrap();
    connecting.set_watch(waits.watch()).unwrap();
    drop(connecting);
    assert!(waits.are_over());
}

/// C7: a second watch receives everything, and the first one learns that it has nothing left.
fn pending_connect_watch_replaces_the_watch_before<A: Api>() {
    let queue = FullQueue::new();
    let (first, second) = (Waits::default(), Waits::default());
    let mut connecting = A::start(&queue.endpoint(), &[]).unwrap();
    connecting.set_watch(first.watch()).unwrap();
    assert_eq!(first.descriptors(), 1);
    connecting.set_watch(second.watch()).unwrap();
    assert!(first.are_over());
    assert_eq!(second.descriptors(), 1);
    queue.make_room();
    while connecting.finish().unwrap().is_none() {
        second.wait();
    }
    assert!(second.are_over());
}
