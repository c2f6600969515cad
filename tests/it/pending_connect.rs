//! T4, C1, C2, C3: a connect that the caller waits for.

use std::thread;
use std::time::{Duration, Instant};

use crate::support;
use crate::support::{
    Api, Client, FullQueue, INFINITE, OnDrop, Opt, Outcome, PendingConnect, Server, TempDir, Token,
    Transport, fails, pair, refused_address, somewhere, system,
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
    let mut connecting = A::start("no-such-host.invalid:80", &[]).unwrap();
    let failure = by_descriptor::<A>(&mut connecting).err().unwrap();
    assert!(failure.is(ErrorKind::NotFound) || failure.is(ErrorKind::LookupFailed), "{failure:?}");
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
        let mut connecting = A::start(&queue.endpoint(), &options).unwrap();
        let start = Instant::now();
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

/// S5: an attempt in progress is in the state SYN-SENT.
fn pending_connect_attempts_are_in_syn_sent<A: Api>() {
    let queue = FullQueue::new();
    let mut connecting = A::start(&queue.endpoint(), &[]).unwrap();
    assert!(connecting.finish().unwrap().is_none());
    assert_eq!(connecting.attempts_in_progress(), [(queue.endpoint(), TcpState::SynSent as i32)]);
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
