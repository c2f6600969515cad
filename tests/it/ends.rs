//! K7: after a limit of this side has ended a connection, each call reports that end.
//! tests/netns/liveness.rs has the limit of a vanished peer.

use std::time::Duration;

use crate::support::ends::{self, Call, End, IDLE, UNANSWERED};
use crate::support::{
    Api, Client, INFINITE, OnDrop, Opt, TRANSPORTS, Transport, eventually, fails, limited_pair,
    small_pair, system, waiting_calls, while_waiting, with_raw_peer,
};
use keepsock::{CloseReason, ErrorKind, TcpState};

both_apis![
    calls_after_a_limit_report_its_end,
    calls_after_a_limit_is_turned_off_report_its_end,
    buffered_bytes_after_a_limit_are_read,
    calls_in_progress_when_a_limit_ends_the_connection_report_its_end,
    reset_before_a_limit_stays_the_end,
    reset_after_a_limit_does_not_replace_its_end,
];

const PING: &[u8] = b"PING\r\n";

fn limits<A: Api>() -> [(&'static str, Vec<Opt<'static, A>>, End); 3] {
    let beats = vec![Opt::Heartbeat(PING, 20), Opt::HeartbeatTimeout(60)];
    [
        ("idle timeout", vec![Opt::IdleTimeout(60)], IDLE),
        ("first-byte timeout", vec![Opt::FirstByteTimeout(60)], IDLE),
        ("heartbeat timeout", beats, UNANSWERED),
    ]
}

/// Lets the limit of the connection end it, in a read or in check_liveness.
fn end_by_limit<A: Api>(client: &A::Client, nonblocking: bool, end: End) {
    if nonblocking {
        client.set_nonblocking(true).unwrap();
        eventually("the limit ends the connection", || {
            client.check_liveness().is_err_and(|failure| failure.is(end.kind))
        });
    } else {
        fails(client.read(&mut [0; 8]), end.kind);
    }
}

/// K5, K6, K7: each call reports the end by a limit, in both modes, also after bytes have arrived.
fn calls_after_a_limit_report_its_end<A: Api>() {
    for transport in TRANSPORTS {
        let on_unix = transport == Transport::Unix;
        for nonblocking in [false, true] {
            for (name, mut options, end) in limits::<A>() {
                options.push(Opt::CloseTimeout(5000));
                let scene = format!("{transport:?}, {name}, non-blocking: {nonblocking}");
                let p = limited_pair::<A>(transport, &options);
                p.client.write_all(b"data").unwrap();
                end_by_limit::<A>(&p.client, nonblocking, end);
                ends::assert_ended::<A>(&scene, &p.client, end, on_unix);
                p.accepted.write_all(b"late").unwrap();
                eventually("the bytes have arrived", || p.client.stats().unwrap().unread == 4);
                ends::assert_ended::<A>(&scene, &p.client, end, on_unix);
                std::thread::scope(|scope| {
                    let _end = OnDrop(|| p.client.abort());
                    scope.spawn(|| {
                        while p.accepted.read(&mut [0; 512]).is_ok_and(|n| n > 0) {}
                        // A close that failed did not wait for the peer, which may get a reset.
                        let _ = p.accepted.close();
                    });
                    ends::assert_closes::<A>(&p.client, end);
                });
            }
        }
    }
}

/// K7, K8: a limit that is turned off later has ended the connection nevertheless.
fn calls_after_a_limit_is_turned_off_report_its_end<A: Api>() {
    for transport in TRANSPORTS {
        let p = limited_pair::<A>(transport, &[Opt::IdleTimeout(40), Opt::CloseTimeout(0)]);
        end_by_limit::<A>(&p.client, false, IDLE);
        p.client.set_idle_timeout(INFINITE).unwrap();
        p.client.set_read_timeout(5000).unwrap();
        ends::assert_ended::<A>("idle", &p.client, IDLE, transport == Transport::Unix);
        let beats = [Opt::Heartbeat(PING, 20), Opt::HeartbeatTimeout(60), Opt::CloseTimeout(0)];
        let p = limited_pair::<A>(transport, &beats);
        end_by_limit::<A>(&p.client, false, UNANSWERED);
        p.client.set_heartbeat_timeout(INFINITE).unwrap();
        p.client.set_heartbeat(b"", INFINITE).unwrap();
        p.client.set_read_timeout(5000).unwrap();
        ends::assert_ended::<A>("beats", &p.client, UNANSWERED, transport == Transport::Unix);
    }
}

/// I1, K7: the bytes that a failed call has received stay readable.
fn buffered_bytes_after_a_limit_are_read<A: Api>() {
    let p = limited_pair::<A>(Transport::Tcp, &[Opt::IdleTimeout(60), Opt::CloseTimeout(0)]);
    p.accepted.write_all(b"1\n23").unwrap();
    let failure = fails(p.client.read_exact(&mut [0; 8]), IDLE.kind);
    assert_eq!(failure.transferred, 4);
    assert_eq!(p.client.read_line(8).unwrap(), "1");
    fails(p.client.read_line(8), IDLE.kind);
    let mut rest = [0; 8];
    assert_eq!(p.client.read(&mut rest).unwrap(), 2);
    assert_eq!(&rest[..2], b"23");
    fails(p.client.read(&mut rest), IDLE.kind);
}

/// K7, T1: calls of other threads that are waiting when a limit ends the connection report that end.
fn calls_in_progress_when_a_limit_ends_the_connection_report_its_end<A: Api>() {
    for transport in TRANSPORTS {
        for waiting in waiting_calls::<A>() {
            let p = small_pair::<A>(transport);
            p.client.set_idle_timeout(100).unwrap();
            let (outcome, late) = while_waiting(
                || (waiting.call)(&p.client),
                || drop(fails(p.client.read(&mut [0; 8]), IDLE.kind)),
            );
            match waiting.name {
                "wait_hangup" => outcome.unwrap(),
                name => assert!(outcome.is_err_and(|e| e.is(IDLE.kind)), "{transport:?} {name}"),
            }
            assert!(late < Duration::from_secs(5), "{late:?}");
        }
        for Call { name, call } in ends::reads::<A>(transport == Transport::Unix) {
            let p = small_pair::<A>(transport);
            p.client.set_heartbeat(PING, 20).unwrap();
            p.client.set_heartbeat_timeout(60).unwrap();
            let (reason, _) = while_waiting(
                || p.client.wait_hangup(INFINITE),
                || assert!(call(&p.client).is_err_and(|e| e.is(UNANSWERED.kind)), "{name}"),
            );
            assert_eq!(reason.unwrap(), CloseReason::HeartbeatTimeout);
        }
    }
}

/// K7: if the peer has reset the connection before a limit expires, the reset is the end.
fn reset_before_a_limit_stays_the_end<A: Api>() {
    for (_, options, _) in limits::<A>() {
        let (client, peer) = with_raw_peer::<A>(&options);
        system::reset(peer);
        fails(client.read(&mut [0; 8]), ErrorKind::Reset);
        std::thread::sleep(Duration::from_millis(100));
        for Call { name, call } in
            ends::reads::<A>(false).into_iter().chain(ends::writes::<A>(false))
        {
            assert!(call(&client).is_err_and(|e| e.is(ErrorKind::Reset)), "{name}");
        }
        fails(client.check_liveness(), ErrorKind::Reset);
        fails(client.shutdown_write(), ErrorKind::Reset);
        assert_eq!(client.wait_hangup(INFINITE).unwrap(), CloseReason::PeerReset);
        assert_eq!(client.close_reason(), Some(CloseReason::PeerReset));
    }
}

/// K7: a reset that follows a limit does not replace its end.
fn reset_after_a_limit_does_not_replace_its_end<A: Api>() {
    for (name, options, end) in limits::<A>() {
        let (client, peer) = with_raw_peer::<A>(&options);
        end_by_limit::<A>(&client, false, end);
        system::reset(peer);
        eventually("the reset has arrived", || client.state().unwrap() == TcpState::Closed as i32);
        for Call { call, .. } in ends::reads::<A>(false) {
            assert!(call(&client).is_err_and(|e| e.is(end.kind)), "{name}");
        }
        fails(client.check_liveness(), end.kind);
        assert_eq!(client.wait_hangup(INFINITE).unwrap(), end.reason);
        // The last message is lost.
        let lost = if end.last_message { ErrorKind::Reset } else { end.kind };
        fails(client.write_all(b"bye"), lost);
        assert_eq!(client.close_reason(), Some(end.reason));
    }
}
