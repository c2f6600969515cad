//! C4, I1: signals whose handler is installed without SA_RESTART, during each call that waits. A
//! signal neither ends a call nor moves its deadline.

use std::io::Read;
use std::net::TcpStream;
use std::time::Duration;

use crate::support;
#[cfg(feature = "serve")]
use crate::support::Service;
use crate::support::system::{Pest, count_signals, with_signals};
use crate::support::{
    Api, Client, FullQueue, INFINITE, Opt, Outcome, Server, TRANSPORTS, TempDir, Transport, fails,
    pair, pair_with, promptly, small_pair, timed,
};
use keepsock::{CloseReason, ErrorKind};

both_apis![
    read_interrupted_by_signals_continues,
    write_interrupted_by_signals_continues,
    wait_hangup_interrupted_by_signals_continues,
    accept_interrupted_by_signals_continues,
    connect_interrupted_by_signals_continues,
    close_interrupted_by_signals_continues,
    read_timeout_during_signals_is_exact,
    #[cfg(feature = "serve")] {
        wait_interrupted_by_signals_continues,
        other_timeouts_during_signals_are_exact,
    }
];

type Call<A> = fn(&<A as Api>::Client) -> Outcome<()>;
type WriteCall<A> = fn(&<A as Api>::Client, &[u8]) -> Outcome<()>;

const OFTEN: Pest = Pest { every: Duration::from_millis(2), signals: 8 };

/// Both wait modes: in the call itself and, with a token or a timeout, in poll.
fn each_way<A: Api>(test: impl Fn(&dyn Fn(&A::Client))) {
    let token = A::token();
    test(&|_| {});
    test(&|c| c.set_cancel(Some(&token)));
    test(&|c| c.set_read_timeout(20_000).unwrap());
    test(&|c| c.set_write_timeout(20_000).unwrap());
}

/// I1: a read that is interrupted repeatedly gets the data when it arrives.
fn read_interrupted_by_signals_continues<A: Api>() {
    let calls: [Call<A>; 5] = [
        |c| c.read(&mut [0; 64]).map(|n| assert_eq!(n, 5)),
        |c| c.read_slices(&mut [&mut [0; 2], &mut [0; 9]]).map(|n| assert_eq!(n, 5)),
        |c| c.read_exact(&mut [0; 5]),
        |c| c.read_until(b'\n', 64).map(|piece| assert_eq!(piece, b"line\n")),
        |c| c.read_line(64).map(|line| assert_eq!(line, "line")),
    ];
    for transport in TRANSPORTS {
        each_way::<A>(|prepare| {
            let p = pair::<A>(transport);
            prepare(&p.client);
            for call in calls {
                let then = || p.accepted.write_all(b"line\n").unwrap();
                with_signals(OFTEN, || call(&p.client), then).unwrap();
            }
        });
    }
}

/// I1: a write arrives whole, each byte once.
fn write_interrupted_by_signals_continues<A: Api>() {
    const LEN: usize = 1 << 20;
    let calls: [WriteCall<A>; 2] =
        [|c, b| c.write_all(b), |c, b| c.write_slices(&[&b[..LEN / 3], &b[LEN / 3..]])];
    let sent: Vec<u8> = (0..LEN).map(|i| (i % 251) as u8).collect();
    for transport in TRANSPORTS {
        each_way::<A>(|prepare| {
            for call in calls {
                let p = small_pair::<A>(transport);
                prepare(&p.client);
                let then = || {
                    let mut got = vec![0; LEN];
                    p.accepted.read_exact(&mut got).unwrap();
                    assert!(got == sent);
                };
                with_signals(OFTEN, || call(&p.client, &sent), then).unwrap();
            }
        });
    }
}

/// I4: signals do not end wait_hangup.
fn wait_hangup_interrupted_by_signals_continues<A: Api>() {
    for transport in TRANSPORTS {
        let p = pair::<A>(transport);
        let then = || p.accepted.close().unwrap();
        let how = with_signals(OFTEN, || p.client.wait_hangup(INFINITE), then).unwrap();
        assert_eq!(how, CloseReason::PeerClosed);
    }
}

/// L3: signals do not end an accept, which counts each interruption as a retry.
fn accept_interrupted_by_signals_continues<A: Api>() {
    for transport in TRANSPORTS {
        for polled in [false, true] {
            let (endpoint, _dir) = support::somewhere(transport);
            let server = A::listen(&endpoint, &[]).unwrap();
            if polled {
                server.set_accept_timeout(20_000).unwrap();
            }
            let then = || drop(A::connect(&server.endpoint(), &[]).unwrap());
            with_signals(OFTEN, || server.accept(), then).unwrap();
        }
    }
}

/// C4: signals do not end a connect over TCP and Unix.
fn connect_interrupted_by_signals_continues<A: Api>() {
    let dir = TempDir::new();
    let server = A::listen(&dir.endpoint("s"), &[Opt::Backlog(1)]).unwrap();
    let _waiting = support::fill_queue(&dir.path("s"));
    let then = || drop(server.accept().unwrap());
    with_signals(OFTEN, || A::connect(&dir.endpoint("s"), &[]), then).unwrap();
    // The queue empties: the kernel sends the SYN again after a second, and then gets a reply.
    let queue = FullQueue::new();
    let then = || queue.make_room();
    with_signals(OFTEN, || A::connect(&queue.endpoint(), &[]), then).unwrap();
}

/// I3: signals do not end a close that waits for the peer.
fn close_interrupted_by_signals_continues<A: Api>() {
    for transport in TRANSPORTS {
        let p = pair_with::<A>(transport, &[Opt::CloseTimeout(10_000)]);
        p.client.write_all(b"x").unwrap();
        let then = || {
            // A close with unread input would cause a reset.
            assert_eq!(p.accepted.read(&mut [0; 8]).unwrap(), 1);
            p.accepted.close().unwrap();
        };
        with_signals(OFTEN, || p.client.close(), then).unwrap();
    }
}

/// V1: main() waits for the service while signals arrive.
#[cfg(feature = "serve")]
fn wait_interrupted_by_signals_continues<A: Api>() {
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    let hello = |c: &A::Client| drop(c.write_all(b"hello\n"));
    let service = server.serve(&[], Box::new(hello)).unwrap();
    let then = || {
        let mut text = String::new();
        let mut client = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
        client.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello\n");
        service.stop();
    };
    with_signals(OFTEN, || service.wait_stopped(INFINITE), then).unwrap();
}

/// I1: a read timeout of 300 ms with a signal every 10 ms expires after 300 ms, not earlier and not
/// much later. Each signal would restart the kernel's own timer.
fn read_timeout_during_signals_is_exact<A: Api>() {
    let calls: [Call<A>; 3] = [
        |c| c.read(&mut [0; 64]).map(drop),
        |c| c.read_exact(&mut [0; 64]),
        |c| c.read_line(64).map(drop),
    ];
    for call in calls {
        let p = pair_with::<A>(Transport::Tcp, &[Opt::ReadTimeout(300), Opt::CloseTimeout(0)]);
        assert_timeout(300, || call(&p.client));
    }
}

/// I1, I4, C1: the other timeouts also expire on time.
#[cfg(feature = "serve")]
fn other_timeouts_during_signals_are_exact<A: Api>() {
    let p = small_pair::<A>(Transport::Tcp);
    p.client.set_write_timeout(200).unwrap();
    assert_timeout(200, || p.client.write_all(&vec![0; support::MORE_THAN_FITS]));
    assert_timeout(200, || p.client.wait_hangup(200));
    p.server.set_accept_timeout(200).unwrap();
    assert_timeout(200, || p.server.accept());
    let queue = FullQueue::new();
    assert_timeout(200, || A::connect(&queue.endpoint(), &[Opt::ConnectTimeout(200)]));
    let p = pair_with::<A>(Transport::Tcp, &[Opt::CloseTimeout(1500)]);
    let service = p.server.serve(&[], Box::new(|_: &A::Client| ())).unwrap();
    assert_timeout(200, || service.wait_stopped(200));
    p.client.write_all(b"x").unwrap();
    let (outcome, took) = timed(|| {
        with_signals(
            Pest { every: Duration::from_millis(10), signals: 5 },
            || p.client.close(),
            || (),
        )
    });
    fails(outcome, ErrorKind::TimedOut);
    assert!(took >= Duration::from_millis(1500), "{took:?}");
}

/// Checks that a waiting call ends by its timeout despite signals.
fn assert_timeout<T>(ms: u64, call: impl Fn() -> Outcome<T>) {
    let limit = Duration::from_millis(ms);
    promptly(limit + Duration::from_millis(200), || {
        let pest = Pest { every: Duration::from_millis(10), signals: 5 };
        let ((outcome, took), caught) = count_signals(pest, || timed(&call), || ());
        fails(outcome, ErrorKind::TimedOut);
        assert!(took >= limit, "{took:?}");
        // A busy machine may delay the thread that sends the signals.
        if caught < pest.signals { Duration::MAX } else { took }
    });
}
