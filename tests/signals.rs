//! C4, I1: signals whose handler is installed without SA_RESTART, during every call that
//! waits. No call ends by one, and no deadline moves.
#![cfg(target_os = "linux")]
// Generic functions are tests that Clippy does not know for such.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::io::Read;
use std::net::TcpStream;
use std::time::Duration;

use common::system::{Pest, pestered};
use common::{
    Api, Client, FullQueue, INFINITE, Opt, Outcome, Server, Service, TRANSPORTS, TempDir,
    Transport, fails, pair, pair_with, promptly, small_pair, timed,
};
use keepsock::{End, ErrorKind};

both_apis![
    reading_goes_on,
    writing_goes_on,
    waiting_for_hangup_goes_on,
    accepting_goes_on,
    connecting_goes_on,
    closing_goes_on,
    serving_goes_on,
    a_read_timeout_holds,
    other_timeouts_hold,
];

type Call<A> = fn(&<A as Api>::Client) -> Outcome<()>;
type WriteCall<A> = fn(&<A as Api>::Client, &[u8]) -> Outcome<()>;

const OFTEN: Pest = Pest { every: Duration::from_millis(2), signals: 8 };

/// Both ways of waiting: in the call itself, and, with a token or a timeout behind it,
/// in poll.
fn each_way<A: Api>(test: impl Fn(&dyn Fn(&A::Client))) {
    let token = A::token();
    test(&|_| {});
    test(&|c| c.set_cancel(Some(&token)));
    test(&|c| c.set_read_timeout(20_000).unwrap());
    test(&|c| c.set_write_timeout(20_000).unwrap());
}

/// I1: a read that is interrupted again and again gets what comes in the end.
fn reading_goes_on<A: Api>() {
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
                pestered(OFTEN, || call(&p.client), then).unwrap();
            }
        });
    }
}

/// I1: a write arrives whole, each byte once.
fn writing_goes_on<A: Api>() {
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
                pestered(OFTEN, || call(&p.client, &sent), then).unwrap();
            }
        });
    }
}

/// I4: neither does waiting for the end.
fn waiting_for_hangup_goes_on<A: Api>() {
    for transport in TRANSPORTS {
        let p = pair::<A>(transport);
        let then = || p.accepted.close().unwrap();
        let how = pestered(OFTEN, || p.client.wait_hangup(INFINITE), then).unwrap();
        assert_eq!(how, End::ClosedByPeer);
    }
}

/// L3: nor accept, which counts each interruption as a try again.
fn accepting_goes_on<A: Api>() {
    for transport in TRANSPORTS {
        for polled in [false, true] {
            let (endpoint, _dir) = common::somewhere(transport);
            let server = A::listen(&endpoint, &[]).unwrap();
            if polled {
                server.set_accept_timeout(20_000).unwrap();
            }
            let then = || drop(A::connect(&server.endpoint(), &[]).unwrap());
            pestered(OFTEN, || server.accept(), then).unwrap();
        }
    }
}

/// C4: a signal during connect, over TCP and Unix.
fn connecting_goes_on<A: Api>() {
    let dir = TempDir::new();
    let server = A::listen(&dir.endpoint("s"), &[Opt::Backlog(1)]).unwrap();
    let fill = || A::connect(&dir.endpoint("s"), &[Opt::ConnectTimeout(30)]);
    let _waiting: Vec<_> = std::iter::repeat_with(fill).map_while(Result::ok).collect();
    let then = || drop(server.accept().unwrap());
    pestered(OFTEN, || A::connect(&dir.endpoint("s"), &[]), then).unwrap();
    // A queue that empties: the SYN is sent again after a second, and answered then.
    let queue = FullQueue::new();
    let then = || queue.make_room();
    pestered(OFTEN, || A::connect(&queue.endpoint(), &[]), then).unwrap();
}

/// I3: a close that waits for the peer.
fn closing_goes_on<A: Api>() {
    for transport in TRANSPORTS {
        let p = pair_with::<A>(transport, &[Opt::CloseTimeout(10_000)]);
        p.client.write_all(b"x").unwrap();
        let then = || {
            // Closed with unread input, it would be a reset.
            assert_eq!(p.accepted.read(&mut [0; 8]).unwrap(), 1);
            p.accepted.close().unwrap();
        };
        pestered(OFTEN, || p.client.close(), then).unwrap();
    }
}

/// V1: main() waits for the service while signals come.
fn serving_goes_on<A: Api>() {
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
    pestered(OFTEN, || service.wait(INFINITE), then).unwrap();
}

/// I1: a read timeout of 300 ms with a signal each 10 ms ends after 300 ms, not before
/// and not much later. The kernel's own timer would start anew with each.
fn a_read_timeout_holds<A: Api>() {
    let calls: [Call<A>; 3] = [
        |c| c.read(&mut [0; 64]).map(drop),
        |c| c.read_exact(&mut [0; 64]),
        |c| c.read_line(64).map(drop),
    ];
    for call in calls {
        let p = pair_with::<A>(Transport::Tcp, &[Opt::ReadTimeout(300), Opt::CloseTimeout(0)]);
        holds(300, || call(&p.client));
    }
}

/// I1, I4, C1: the other limits likewise.
fn other_timeouts_hold<A: Api>() {
    let p = small_pair::<A>(Transport::Tcp);
    p.client.set_write_timeout(200).unwrap();
    holds(200, || p.client.write_all(&vec![0; common::MORE_THAN_FITS]));
    holds(200, || p.client.wait_hangup(200));
    p.server.set_accept_timeout(200).unwrap();
    holds(200, || p.server.accept());
    let queue = FullQueue::new();
    holds(200, || A::connect(&queue.endpoint(), &[Opt::ConnectTimeout(200)]));
    let p = pair_with::<A>(Transport::Tcp, &[Opt::CloseTimeout(200)]);
    let service = p.server.serve(&[], Box::new(|_: &A::Client| ())).unwrap();
    holds(200, || service.wait(200));
    p.client.write_all(b"x").unwrap();
    let (outcome, took) = timed(|| {
        pestered(Pest { every: Duration::from_millis(10), signals: 5 }, || p.client.close(), || ())
    });
    fails(outcome, ErrorKind::TimedOut);
    assert!(took >= Duration::from_millis(200), "{took:?}");
}

/// That a call which waits for nothing ends by its timeout, in spite of signals.
fn holds<T>(ms: u64, call: impl Fn() -> Outcome<T>) {
    let limit = Duration::from_millis(ms);
    promptly(limit + Duration::from_millis(200), || {
        let pest = Pest { every: Duration::from_millis(10), signals: 5 };
        let (outcome, took) = pestered(pest, || timed(&call), || ());
        fails(outcome, ErrorKind::TimedOut);
        assert!(took >= limit, "{took:?}");
        took
    });
}
