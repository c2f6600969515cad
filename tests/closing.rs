//! I3: half-close, graceful close, abort. I4: waiting for hang-up.
#![cfg(target_os = "linux")]
// Generic functions are tests that Clippy does not know for such.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::io::{ErrorKind as IoKind, Read, Write};
use std::net::Shutdown;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use common::{
    Api, Client, INFINITE, Opt, Outcome, Server, TRANSPORTS, Token, Transport, fails, pair,
    pair_with, promptly, system, timed, with_raw_peer,
};
use keepsock::{End, ErrorKind};

both_apis![
    half_close_leaves_the_other_direction,
    graceful_close_delivers_all_in_spite_of_unread_input,
    closing_waits_for_nobody_without_need,
    closing_ends_in_time_when_the_peer_never_does,
    a_close_timeout_is_set_later,
    a_close_timeout_of_zero_waits_not_at_all,
    closing_tells_that_the_peer_broke_off,
    a_cancelled_close_closes,
    close_twice,
    two_closes_at_once_lose_nothing,
    abort_is_a_reset,
    abort_under_a_reader_is_a_reset,
    closing_while_another_reads_delivers_all,
    freeing_closes_gracefully,
    hangup_tells_fin_from_reset,
    hangup_only_looks,
    data_before_a_fin_stays_readable,
    data_before_a_reset_stays_readable,
    the_reason_is_told_again_after_waiting_for_it,
    a_reset_is_one_for_all_who_wait,
    our_own_half_close_is_no_hangup,
    a_last_word_that_the_peer_rejects,
];

/// I3: after a half-close the peer reads to the end, and can still send.
fn half_close_leaves_the_other_direction<A: Api>() {
    for transport in TRANSPORTS {
        let p = pair::<A>(transport);
        p.client.write_all(b"question").unwrap();
        p.client.shutdown_write().unwrap();
        let mut buf = [0; 64];
        p.accepted.read_exact(&mut buf[..8]).unwrap();
        assert_eq!(p.accepted.read(&mut buf).unwrap(), 0);
        p.accepted.write_all(b"answer\n").unwrap();
        assert_eq!(p.client.read_line(64).unwrap(), "answer");
        fails(p.client.write(b"x"), ErrorKind::WrongState);
        fails(p.client.write_all(b"x"), ErrorKind::WrongState);
        fails(p.client.write_slices(&[b"x"]), ErrorKind::WrongState);
        p.client.shutdown_write().unwrap();
    }
}

/// Reads to the end, and sends a little after each read; how much came.
fn read_while_sending<A: Api>(client: &A::Client) -> usize {
    let mut buf = vec![0; 64 << 10];
    let mut got = 0;
    loop {
        match client.read(&mut buf).unwrap() {
            0 => return got,
            n => got += n,
        }
        let _ = client.write(&[b'q'; 10]).unwrap();
    }
}

/// I3: a server that closes after a reply of 1 MB, while the client's input lies
/// unread and more of it comes, loses nothing of the reply.
fn graceful_close_delivers_all_in_spite_of_unread_input<A: Api>() {
    const REPLY: usize = 1 << 20;
    for transport in TRANSPORTS {
        let p = pair_with::<A>(transport, &[Opt::CloseTimeout(20_000)]);
        // Room for the whole reply in the kernel, so that close has all of it to lose.
        system::force_send_buffer(p.accepted.fd().unwrap(), 4 << 20);
        let closing = AtomicBool::new(false);
        thread::scope(|scope| {
            let server = scope.spawn(|| {
                p.accepted.write_all(&vec![b'r'; REPLY]).unwrap();
                closing.store(true, Ordering::Release);
                p.accepted.close()
            });
            p.client.write_all(&[b'q'; 10_000]).unwrap();
            common::eventually("it closes", || closing.load(Ordering::Acquire));
            p.client.write_all(&[b'q'; 10_000]).unwrap();
            assert_eq!(read_while_sending::<A>(&p.client), REPLY);
            p.client.close().unwrap();
            server.join().unwrap().unwrap();
        });
    }
}

/// I3: closing takes no time if nothing was written, if the peer ended its side before,
/// or in non-blocking mode.
fn closing_waits_for_nobody_without_need<A: Api>() {
    let quick = Duration::from_millis(200);
    let options = [Opt::CloseTimeout(5000)];
    for transport in TRANSPORTS {
        promptly(quick, || {
            let p = pair_with::<A>(transport, &options);
            timed(|| p.client.close().unwrap()).1
        });
        promptly(quick, || {
            let p = pair_with::<A>(transport, &options);
            p.client.write_all(b"x").unwrap();
            p.accepted.shutdown_write().unwrap();
            assert_eq!(p.client.read(&mut [0; 8]).unwrap(), 0);
            timed(|| p.client.close().unwrap()).1
        });
        promptly(quick, || {
            let p = pair_with::<A>(transport, &options);
            p.client.write_all(b"x").unwrap();
            p.client.set_nonblocking(true).unwrap();
            let (outcome, took) = timed(|| p.client.close());
            outcome.unwrap();
            assert_eq!(p.accepted.read(&mut [0; 8]).unwrap(), 1);
            took
        });
    }
}

/// I3: close never hangs: not against a peer that never ends its side, nor one that
/// never stops sending. It says that it does not know whether all has arrived.
fn closing_ends_in_time_when_the_peer_never_does<A: Api>() {
    for transport in TRANSPORTS {
        promptly(Duration::from_millis(350), || {
            let p = pair_with::<A>(transport, &[Opt::CloseTimeout(200)]);
            p.client.write_all(b"x").unwrap();
            let (outcome, took) = timed(|| p.client.close());
            fails(outcome, ErrorKind::TimedOut);
            assert!(took >= Duration::from_millis(200), "{took:?}");
            fails(p.client.write(b"x"), ErrorKind::Closed);
            p.accepted.abort();
            took
        });
    }
    promptly(Duration::from_millis(350), || {
        let (client, mut peer) = with_raw_peer::<A>(&[Opt::CloseTimeout(200)]);
        client.write_all(b"x").unwrap();
        let sender = thread::spawn(move || while peer.write_all(&[0; 4096]).is_ok() {});
        let (outcome, took) = timed(|| client.close());
        fails(outcome, ErrorKind::TimedOut);
        sender.join().unwrap();
        took
    });
}

/// I3: the close timeout of an open connection, accepted ones included.
fn a_close_timeout_is_set_later<A: Api>() {
    for transport in TRANSPORTS {
        promptly(Duration::from_millis(150), || {
            let p = pair_with::<A>(transport, &[Opt::CloseTimeout(20_000)]);
            p.accepted.set_close_timeout(100);
            p.accepted.write_all(b"x").unwrap();
            let (outcome, took) = timed(|| p.accepted.close());
            fails(outcome, ErrorKind::TimedOut);
            assert!(took >= Duration::from_millis(100), "{took:?}");
            p.client.abort();
            took
        });
    }
}

/// I3: a close timeout of zero: the FIN is sent, and nobody waited for.
fn a_close_timeout_of_zero_waits_not_at_all<A: Api>() {
    for transport in TRANSPORTS {
        promptly(Duration::from_millis(50), || {
            let p = pair::<A>(transport);
            p.client.write_all(b"bye").unwrap();
            let (outcome, took) = timed(|| p.client.close());
            outcome.unwrap();
            let mut buf = [0; 8];
            p.accepted.read_exact(&mut buf[..3]).unwrap();
            assert_eq!(p.accepted.read(&mut buf).unwrap(), 0);
            took
        });
    }
}

/// I3: a peer that breaks off while we close is told of.
fn closing_tells_that_the_peer_broke_off<A: Api>() {
    let p = pair_with::<A>(Transport::Tcp, &[Opt::CloseTimeout(10_000)]);
    p.client.write_all(b"x").unwrap();
    let (outcome, _) = common::while_waiting(|| p.client.close(), || p.accepted.abort());
    fails(outcome, ErrorKind::Reset);
    fails(p.client.read(&mut [0; 8]), ErrorKind::Closed);
}

/// T2, I3: a token ends a close that waits for the peer; it is closed all the same.
fn a_cancelled_close_closes<A: Api>() {
    for transport in TRANSPORTS {
        let p = pair_with::<A>(transport, &[Opt::CloseTimeout(10_000)]);
        let token = A::token();
        p.client.write_all(b"x").unwrap();
        p.client.set_cancel(Some(&token));
        let (outcome, _) = common::while_waiting(|| p.client.close(), || token.fire());
        fails(outcome, ErrorKind::Cancelled);
        fails(p.client.read(&mut [0; 8]), ErrorKind::Closed);
        p.client.close().unwrap();
    }
}

/// I3: closing twice is fine; every other call says that it is closed.
fn close_twice<A: Api>() {
    for transport in TRANSPORTS {
        let p = pair::<A>(transport);
        p.client.write_all(b"x").unwrap();
        p.client.close().unwrap();
        assert_eq!(p.accepted.read(&mut [0; 8]).unwrap(), 1);
        assert_eq!(p.accepted.read(&mut [0; 8]).unwrap(), 0);
        p.client.close().unwrap();
        p.client.abort();
        let c = &p.client;
        let calls: [Outcome<()>; 18] = [
            c.read(&mut [0; 8]).map(drop),
            c.read_slices(&mut [&mut [0; 8]]).map(drop),
            c.read_exact(&mut [0; 8]),
            c.read_until(b';', 8).map(drop),
            c.read_line(8).map(drop),
            c.write(b"x").map(drop),
            c.write_all(b"x"),
            c.write_slices(&[b"x"]),
            c.wait_hangup(0).map(drop),
            c.shutdown_write(),
            c.keepalive().map(drop),
            c.set_keepalive(1000, 1000, 1),
            c.disable_keepalive(),
            c.set_read_timeout(10),
            c.set_write_timeout(10),
            c.set_nonblocking(true),
            c.fd().map(drop),
            c.release().map(drop),
        ];
        for outcome in calls {
            let failure = fails(outcome, ErrorKind::Closed);
            assert!(failure.message.ends_with(": closed"), "{failure:?}");
        }
        c.set_cancel(None);
        // After an abort likewise.
        p.accepted.abort();
        p.accepted.abort();
        p.accepted.close().unwrap();
        fails(p.accepted.read(&mut [0; 8]), ErrorKind::Closed);
    }
}

/// I3, T3: a second close, while the first is waiting for the peer, does not cut it short.
fn two_closes_at_once_lose_nothing<A: Api>() {
    const REPLY: usize = 1 << 20;
    let p = pair_with::<A>(Transport::Tcp, &[Opt::CloseTimeout(20_000)]);
    system::force_send_buffer(p.accepted.fd().unwrap(), 4 << 20);
    p.client.write_all(&[b'q'; 10_000]).unwrap();
    p.accepted.write_all(&vec![b'r'; REPLY]).unwrap();
    let closing = AtomicBool::new(false);
    thread::scope(|scope| {
        let first = scope.spawn(|| {
            closing.store(true, Ordering::Release);
            p.accepted.close()
        });
        common::eventually("it closes", || closing.load(Ordering::Acquire));
        p.accepted.close().unwrap();
        assert_eq!(read_while_sending::<A>(&p.client), REPLY);
        p.client.close().unwrap();
        first.join().unwrap().unwrap();
    });
}

/// I3: abort sends RST, at once, in spite of what is under way.
fn abort_is_a_reset<A: Api>() {
    promptly(Duration::from_millis(50), || {
        let (client, mut peer) = with_raw_peer::<A>(&[Opt::CloseTimeout(10_000)]);
        client.write_all(&[0; 100_000]).unwrap();
        let ((), took) = timed(|| client.abort());
        let mut all = Vec::new();
        let end = peer.read_to_end(&mut all);
        assert_eq!(end.unwrap_err().kind(), IoKind::ConnectionReset);
        took
    });
}

/// I3: a socket that is freed, or dropped, closes as close does.
fn freeing_closes_gracefully<A: Api>() {
    let (client, mut peer) = with_raw_peer::<A>(&[]);
    peer.write_all(b"unread").unwrap();
    client.write_all(b"reply").unwrap();
    thread::scope(|scope| {
        scope.spawn(move || drop(client));
        let mut all = Vec::new();
        peer.read_to_end(&mut all).unwrap();
        assert_eq!(all, b"reply");
        peer.shutdown(Shutdown::Both).unwrap();
    });
}

/// I4: FIN and RST are told apart, without consuming data.
fn hangup_tells_fin_from_reset<A: Api>() {
    type Ends<A> = fn(&<A as Api>::Client);
    let fin: Ends<A> = |c| c.shutdown_write().unwrap();
    let close: Ends<A> = |c| c.close().unwrap();
    for transport in TRANSPORTS {
        for end in [fin, close] {
            let p = pair::<A>(transport);
            let (how, _) =
                common::while_waiting(|| p.accepted.wait_hangup(INFINITE), || end(&p.client));
            assert_eq!(how.unwrap(), End::ClosedByPeer);
            assert_eq!(p.accepted.wait_hangup(INFINITE).unwrap(), End::ClosedByPeer);
        }
    }
    let p = pair::<A>(Transport::Tcp);
    let (how, _) = common::while_waiting(|| p.accepted.wait_hangup(INFINITE), || p.client.abort());
    assert_eq!(how.unwrap(), End::ResetByPeer);
    assert_eq!(p.accepted.wait_hangup(INFINITE).unwrap(), End::ResetByPeer);
    // On a Unix socket unread input is what makes a reset.
    let p = pair::<A>(Transport::Unix);
    p.accepted.write_all(b"unread").unwrap();
    p.client.abort();
    assert_eq!(p.accepted.wait_hangup(INFINITE).unwrap(), End::ResetByPeer);
}

/// I4: a time-out says that the connection lives; zero only looks; data is no hang-up.
fn hangup_only_looks<A: Api>() {
    for transport in TRANSPORTS {
        let p = pair::<A>(transport);
        fails(p.accepted.wait_hangup(0), ErrorKind::TimedOut);
        p.client.write_all(b"data").unwrap();
        let (outcome, took) = timed(|| p.accepted.wait_hangup(60));
        let failure = fails(outcome, ErrorKind::TimedOut);
        assert!(took >= Duration::from_millis(60), "{took:?}");
        assert_eq!(failure.operation, "wait for hang-up");
        // The read timeout is another one.
        p.accepted.set_read_timeout(10_000).unwrap();
        fails(p.accepted.wait_hangup(10), ErrorKind::TimedOut);
        p.client.shutdown_write().unwrap();
        assert_eq!(p.accepted.wait_hangup(INFINITE).unwrap(), End::ClosedByPeer);
    }
}

/// I4: what came before the FIN stays readable, then comes the end.
fn data_before_a_fin_stays_readable<A: Api>() {
    for transport in TRANSPORTS {
        let p = pair::<A>(transport);
        p.client.write_all(b"line\nrest").unwrap();
        assert_eq!(p.accepted.read_line(64).unwrap(), "line");
        p.client.shutdown_write().unwrap();
        assert_eq!(p.accepted.wait_hangup(INFINITE).unwrap(), End::ClosedByPeer);
        assert_eq!(p.accepted.read_until(b';', 64).unwrap(), b"rest");
        assert_eq!(p.accepted.read(&mut [0; 8]).unwrap(), 0);
    }
}

/// I4: what came before the RST too, then comes the error.
fn data_before_a_reset_stays_readable<A: Api>() {
    let p = pair::<A>(Transport::Tcp);
    p.client.write_all(b"last words").unwrap();
    common::eventually("it has arrived", || system::readable_bytes(p.accepted.fd().unwrap()) == 10);
    p.client.abort();
    assert_eq!(p.accepted.wait_hangup(INFINITE).unwrap(), End::ResetByPeer);
    let mut buf = [0; 64];
    assert_eq!(p.accepted.read(&mut buf).unwrap(), 10);
    assert_eq!(&buf[..10], b"last words");
    fails(p.accepted.read(&mut buf), ErrorKind::Reset);
}

/// I4: the kernel tells an error once; the calls after tell it all the same, and do
/// not take the connection for closed in order.
fn the_reason_is_told_again_after_waiting_for_it<A: Api>() {
    let p = pair::<A>(Transport::Tcp);
    p.client.abort();
    assert_eq!(p.accepted.wait_hangup(INFINITE).unwrap(), End::ResetByPeer);
    for _ in 0..2 {
        fails(p.accepted.read(&mut [0; 8]), ErrorKind::Reset);
        fails(p.accepted.read_exact(&mut [0; 8]), ErrorKind::Reset);
        fails(p.accepted.read_line(64), ErrorKind::Reset);
        fails(p.accepted.write_all(b"x"), ErrorKind::Reset);
        assert_eq!(p.accepted.wait_hangup(0).unwrap(), End::ResetByPeer);
    }
    // The other way round: first the read, then the wait.
    let p = pair::<A>(Transport::Tcp);
    p.client.abort();
    fails(p.accepted.read(&mut [0; 8]), ErrorKind::Reset);
    fails(p.accepted.read(&mut [0; 8]), ErrorKind::Reset);
    assert_eq!(p.accepted.wait_hangup(0).unwrap(), End::ResetByPeer);
}

/// I4, T1: a reset that two threads wait for is a reset to both, though the kernel tells
/// it to one of them only: to neither it is an end in order.
fn a_reset_is_one_for_all_who_wait<A: Api>() {
    for _ in 0..200 {
        let p = pair::<A>(Transport::Tcp);
        thread::scope(|scope| {
            let reader = scope.spawn(|| p.accepted.read(&mut [0; 8]));
            let waiter = scope.spawn(|| p.accepted.wait_hangup(INFINITE));
            let second = scope.spawn(|| p.accepted.read_line(64));
            thread::yield_now();
            p.client.abort();
            fails(reader.join().unwrap(), ErrorKind::Reset);
            fails(second.join().unwrap(), ErrorKind::Reset);
            assert_eq!(waiter.join().unwrap().unwrap(), End::ResetByPeer);
        });
    }
}

/// I4: our own half-close does not look like the peer's.
fn our_own_half_close_is_no_hangup<A: Api>() {
    for transport in TRANSPORTS {
        let p = pair::<A>(transport);
        p.accepted.shutdown_write().unwrap();
        fails(p.accepted.wait_hangup(20), ErrorKind::TimedOut);
        p.server.close();
        fails(p.accepted.wait_hangup(0), ErrorKind::TimedOut);
        p.client.close().unwrap();
        assert_eq!(p.accepted.wait_hangup(INFINITE).unwrap(), End::ClosedByPeer);
    }
}

/// I3, T3: a close while another thread reads loses nothing of what was written either.
fn closing_while_another_reads_delivers_all<A: Api>() {
    const REPLY: usize = 1 << 20;
    for transport in TRANSPORTS {
        let p = pair_with::<A>(transport, &[Opt::CloseTimeout(20_000)]);
        system::force_send_buffer(p.accepted.fd().unwrap(), 4 << 20);
        thread::scope(|scope| {
            let server = scope.spawn(|| {
                p.accepted.write_all(&vec![b'r'; REPLY]).unwrap();
                let (outcome, _) = common::while_waiting(
                    || p.accepted.read(&mut [0; 8]),
                    || p.accepted.close().unwrap(),
                );
                fails(outcome, ErrorKind::Closed);
            });
            let mut got = vec![0; REPLY];
            p.client.read_exact(&mut got).unwrap();
            assert_eq!(p.client.read(&mut got).unwrap(), 0);
            server.join().unwrap();
        });
    }
}

/// I3: an abort while other threads are in calls is a reset and not an orderly end: the
/// peer must not take what it got for all there is.
fn abort_under_a_reader_is_a_reset<A: Api>() {
    for polled in [false, true] {
        for _ in 0..20 {
            let (client, mut peer) = with_raw_peer::<A>(&[]);
            let token = A::token();
            if polled {
                client.set_cancel(Some(&token));
            }
            client.write_all(b"half a message").unwrap();
            let end = thread::spawn(move || peer.read_to_end(&mut Vec::new()));
            let (outcome, _) =
                common::while_waiting(|| client.read(&mut [0; 8]), || client.abort());
            fails(outcome, ErrorKind::Closed);
            let end = end.join().unwrap();
            assert_eq!(end.unwrap_err().kind(), IoKind::ConnectionReset);
        }
    }
}

/// I3, K6: what is written after the peer has closed altogether is rejected, and close says so; a
/// peer that has only ended its side takes it.
fn a_last_word_that_the_peer_rejects<A: Api>() {
    let (client, peer) = with_raw_peer::<A>(&[]);
    drop(peer);
    assert_eq!(client.read(&mut [0; 8]).unwrap(), 0);
    client.write_all(b"to nobody").unwrap();
    fails(client.close(), ErrorKind::Reset);
    assert_eq!(client.end(), Some(End::ClosedByPeer), "that came first");

    let (client, mut peer) = with_raw_peer::<A>(&[]);
    peer.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.read(&mut [0; 8]).unwrap(), 0);
    client.write_all(b"to somebody").unwrap();
    client.close().unwrap();
    let mut all = Vec::new();
    peer.read_to_end(&mut all).unwrap();
    assert_eq!(all, b"to somebody");

    // It broke off while it was being closed.
    let (client, mut peer) = with_raw_peer::<A>(&[Opt::CloseTimeout(5000)]);
    client.write_all(b"bytes").unwrap();
    std::thread::scope(|scope| {
        let closing = scope.spawn(|| client.close());
        peer.read_to_end(&mut Vec::new()).unwrap(); // up to the FIN
        common::system::reset(peer);
        fails(closing.join().unwrap(), ErrorKind::Reset);
    });
    assert_eq!(client.end(), Some(End::ResetByPeer));
}
