//! T4, C1, C2, C3: a connect that the caller waits for.
#![cfg(target_os = "linux")]
// Generic functions are tests that Clippy does not know for such.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::thread;
use std::time::{Duration, Instant};

use common::{
    Api, Client, Connecting, FullQueue, INFINITE, OnDrop, Opt, Outcome, Server, TempDir, Token,
    Transport, fails, pair, refused_address, somewhere, system,
};
use keepsock::{ErrorKind, TcpState};

both_apis![
    it_connects,
    it_connects_by_name,
    the_descriptor_is_enough_to_wait_for,
    a_deadline_makes_the_descriptor_readable,
    a_cancel_makes_the_descriptor_readable,
    a_refusal_is_told_by_finish,
    the_report_of_a_connect_that_succeeded,
    attempts_under_way_are_in_syn_sent,
    a_full_unix_queue_is_not_waited_for,
    waiting_for_it_keeps_the_deadline,
    it_ends_once,
    nothing_is_left_of_one_that_is_given_up,
    a_local_name_would_have_to_be_waited_for,
    the_delay_between_attempts,
];

/// Waits as an event loop does: for the one descriptor, and for nothing else.
fn by_descriptor<A: Api>(connecting: &mut A::Connecting) -> Outcome<A::Client> {
    let fd = connecting.fd().unwrap();
    loop {
        if let Some(client) = connecting.finish()? {
            return Ok(client);
        }
        assert!(system::becomes_readable(fd, 10_000), "not readable within 10 s");
    }
}

/// T4: on both transports; connected is connected.
fn it_connects<A: Api>() {
    for transport in common::TRANSPORTS {
        let (endpoint, _dir) = somewhere(transport);
        let server = A::listen(&endpoint, &[Opt::CloseTimeout(0)]).unwrap();
        let options = [Opt::Keepalive(7000, 2000, 3), Opt::CloseTimeout(0)];
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

/// T4: the lookup is waited for by the descriptor, too.
fn it_connects_by_name<A: Api>() {
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    let endpoint = format!("localhost:{}", server.port());
    let options = [Opt::Family(keepsock::Family::Ipv4)];
    let mut connecting = A::start(&endpoint, &options).unwrap();
    by_descriptor::<A>(&mut connecting).unwrap();
    let mut connecting = A::start("no-such-host.invalid:80", &[]).unwrap();
    let failure = by_descriptor::<A>(&mut connecting).err().unwrap();
    assert!(failure.is(ErrorKind::NotFound) || failure.is(ErrorKind::LookupFailed), "{failure:?}");
}

/// T4, C2: attempts that start later are watched by the same descriptor.
fn the_descriptor_is_enough_to_wait_for<A: Api>() {
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

/// T4, C1.
fn a_deadline_makes_the_descriptor_readable<A: Api>() {
    let queue = FullQueue::new();
    common::promptly(Duration::from_millis(250), || {
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

/// T4, T2.
fn a_cancel_makes_the_descriptor_readable<A: Api>() {
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
    // Fired before.
    let started = A::start(&queue.endpoint(), &[Opt::Cancel(&token)]);
    fails(started.and_then(|mut connecting| connecting.wait()), ErrorKind::Cancelled);
}

/// T4, C3: not by start, wherever it is known so early.
fn a_refusal_is_told_by_finish<A: Api>() {
    let mut connecting = A::start(&refused_address().to_string(), &[]).unwrap();
    let failure = by_descriptor::<A>(&mut connecting).err().unwrap();
    assert!(failure.is(ErrorKind::Refused), "{failure:?}");
    assert_eq!(failure.attempts.len(), 1);
    assert_eq!(connecting.attempts(), failure.attempts.to_vec());
}

/// C3: the attempts that failed on the way, and those that another one was faster than.
fn the_report_of_a_connect_that_succeeded<A: Api>() {
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
    // Nothing to report.
    let mut connecting = A::start(&server.endpoint(), &[]).unwrap();
    connecting.wait().unwrap();
    assert_eq!(connecting.attempts(), []);
}

/// S5: SYN-SENT is something to be seen.
fn attempts_under_way_are_in_syn_sent<A: Api>() {
    let queue = FullQueue::new();
    let mut connecting = A::start(&queue.endpoint(), &[]).unwrap();
    assert!(connecting.finish().unwrap().is_none());
    assert_eq!(connecting.under_way(), [(queue.endpoint(), TcpState::SynSent as i32)]);
    queue.make_room();
    by_descriptor::<A>(&mut connecting).unwrap();
    assert_eq!(connecting.under_way(), []);
}

/// C1: as the blocking connect does.
fn waiting_for_it_keeps_the_deadline<A: Api>() {
    let queue = FullQueue::new();
    common::promptly(Duration::from_millis(250), || {
        let mut connecting = A::start(&queue.endpoint(), &[Opt::ConnectTimeout(200)]).unwrap();
        let timeout = connecting.timeout();
        assert!((100..=200).contains(&timeout), "{timeout}");
        let (outcome, time) = common::timed(|| connecting.wait());
        fails(outcome, ErrorKind::TimedOut);
        time
    });
    let mut connecting = A::start(&queue.endpoint(), &[Opt::ConnectTimeout(INFINITE)]).unwrap();
    assert_eq!(connecting.timeout(), INFINITE);
}

/// T4, C1, C4: a full Unix queue is tried again by finish, when the descriptor says so.
fn a_full_unix_queue_is_not_waited_for<A: Api>() {
    let dir = TempDir::new();
    let endpoint = dir.endpoint("s");
    let server = A::listen(&endpoint, &[Opt::Backlog(1)]).unwrap();
    let connect = || A::connect(&endpoint, &[Opt::ConnectTimeout(30)]);
    let waiting: Vec<_> = std::iter::repeat_with(connect).map_while(Result::ok).collect();

    common::promptly(Duration::from_millis(150), || {
        let start = Instant::now();
        let mut connecting = A::start(&endpoint, &[Opt::ConnectTimeout(5000)]).unwrap();
        assert!(connecting.finish().unwrap().is_none());
        assert!((0..=20).contains(&connecting.timeout()), "{}", connecting.timeout());
        assert_eq!(connecting.under_way().len(), 1);
        start.elapsed()
    });

    let mut connecting = A::start(&endpoint, &[Opt::ConnectTimeout(100)]).unwrap();
    let failure = by_descriptor::<A>(&mut connecting).err().unwrap();
    assert!(failure.is(ErrorKind::TimedOut), "{failure:?}");
    assert_eq!(failure.attempts.len(), 1);

    let mut connecting = A::start(&endpoint, &[Opt::ConnectTimeout(10_000)]).unwrap();
    assert!(connecting.finish().unwrap().is_none());
    drop(server.accept().unwrap());
    by_descriptor::<A>(&mut connecting).unwrap();
    drop(waiting);
}

/// E2.
fn it_ends_once<A: Api>() {
    let p = pair::<A>(Transport::Tcp);
    let mut connecting = A::start(&p.server.endpoint(), &[]).unwrap();
    connecting.wait().unwrap();
    fails(connecting.finish(), ErrorKind::WrongState);
    fails(connecting.wait(), ErrorKind::WrongState);
    assert_eq!(connecting.timeout(), 0);
    fails(connecting.fd(), ErrorKind::WrongState);
}

/// C2: no descriptor. (tests/races.rs sees that no thread and no memory is left, either.)
fn nothing_is_left_of_one_that_is_given_up<A: Api>() {
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

fn a_local_name_would_have_to_be_waited_for<A: Api>() {
    let failure =
        fails(A::start("127.0.0.1:80", &[Opt::Local("localhost:0")]), ErrorKind::InvalidArgument);
    assert!(failure.message.contains("local address"), "{failure:?}");
}

/// C2: within the RFC's limits; it is what passes between two attempts.
fn the_delay_between_attempts<A: Api>() {
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
        common::promptly(most, || {
            let (client, time) = common::timed(|| A::connect("service:80", &options));
            client.unwrap();
            assert!(time >= Duration::from_millis(delay as u64), "{time:?}");
            time
        });
    }
}
