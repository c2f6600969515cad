//! K3: dead_after, as far as it needs no network. K4: survive_idle. K5: heartbeats and the
//! idle limit. K6: why a connection ended. N1: snapshots. S5: states.
#![cfg(target_os = "linux")]
// Generic functions are tests that Clippy does not know for such.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::io::{Read, Write};
use std::thread;
use std::time::Duration;

use common::{
    Api, Client, INFINITE, Opt, Server, Service, TRANSPORTS, Token, Transport, eventually, fails,
    pair, pair_with, promptly, small_pair, somewhere, system, timed, while_waiting, with_raw_peer,
};
use keepsock::{End, ErrorKind, TcpState};

both_apis![
    dead_after_sets_keepalive_to_fit,
    survive_idle_sets_keepalive_to_fit,
    end_stalled_is_the_kernels,
    options_that_contradict_each_other,
    a_unix_socket_has_no_network,
    heartbeats_are_sent_while_a_call_waits,
    heartbeats_keep_out_of_writes,
    a_write_puts_a_heartbeat_off,
    a_heartbeat_is_complete_before_the_next_write,
    no_heartbeat_after_the_end,
    heartbeats_of_accepted_connections,
    the_idle_limit_ends_reading,
    what_comes_puts_the_idle_limit_off,
    a_heartbeat_that_is_missed,
    a_heartbeat_that_is_answered,
    check_alive_says_when_to_ask_again,
    a_closed_socket_is_not_alive,
    every_end_has_its_reason,
    the_first_reason_stays,
    a_snapshot_counts,
    a_snapshot_of_a_peer_that_does_not_read,
    the_last_snapshot,
    a_snapshot_of_a_unix_socket,
    states_have_the_names_of_rfc_9293,
    keepalive_that_would_break_a_promise,
    check_alive_finds_a_reset,
    closing_after_heartbeats_were_missed_takes_no_time,
    waiting_costs_no_processor_time,
    no_heartbeat_within_a_message_in_parts,
    a_heartbeat_that_cannot_be_completed,
    a_broadcast_waits_for_its_heartbeat,
];

const PING: &[u8] = b"PING\r\n";

fn effective<A: Api>(client: &A::Client) -> (i64, i64, u32) {
    client.keepalive().unwrap().unwrap()
}

/// K3: in the kernel, for both sides; the interval of retransmitting too, where there is one.
fn dead_after_sets_keepalive_to_fit<A: Api>() {
    const TCP_RTO_MAX_MS: libc::c_int = 44;
    let p = pair_with::<A>(Transport::Tcp, &[Opt::DeadAfter(16_000), Opt::CloseTimeout(0)]);
    for client in [&p.client, &p.accepted] {
        let (idle, interval, count) = effective::<A>(client);
        assert_eq!(idle + interval * i64::from(count), 16_000);
        assert_eq!(client.user_timeout().unwrap(), INFINITE);
        let fd = client.fd().unwrap();
        if let Some(ms) = system::try_option(fd, libc::IPPROTO_TCP, TCP_RTO_MAX_MS) {
            assert_eq!(ms, 2000);
        }
    }
    // Options of one's own that are quicker are kept.
    let own = [Opt::Keepalive(2000, 1000, 2), Opt::DeadAfter(16_000)];
    let client = A::connect(&p.server.endpoint(), &own).unwrap();
    assert_eq!(effective::<A>(&client), (2000, 1000, 2));
}

/// K4.
fn survive_idle_sets_keepalive_to_fit<A: Api>() {
    let p = pair_with::<A>(Transport::Tcp, &[Opt::SurviveIdle(20_000), Opt::CloseTimeout(0)]);
    for client in [&p.client, &p.accepted] {
        assert_eq!(effective::<A>(client), (10_000, 5000, 22));
    }
}

/// K3: what the kernel keeps is read back from it, and inherited.
fn end_stalled_is_the_kernels<A: Api>() {
    let options = [Opt::DeadAfter(4321), Opt::EndStalled(true), Opt::CloseTimeout(0)];
    let p = pair_with::<A>(Transport::Tcp, &options);
    for client in [&p.client, &p.accepted] {
        assert_eq!(client.user_timeout().unwrap(), 4321);
        // Silence is watched all the same: the kernel's time counts from the first byte.
        assert!((1..=4321).contains(&client.check_alive().unwrap()));
    }
    p.client.close().unwrap();
    fails(p.client.user_timeout(), ErrorKind::Closed);
}

/// K3, K4, K5: bad input gets a clear error.
fn options_that_contradict_each_other<A: Api>() {
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    let refused: [(&[Opt<'_, A>], &str); 12] = [
        (&[Opt::DeadAfter(1999)], "dead_after is not within 2s"),
        (&[Opt::DeadAfter(i64::MAX)], "dead_after is not within"),
        (&[Opt::DeadAfter(0)], "dead_after is not within"),
        (&[Opt::SurviveIdle(1000)], "survive_idle is not within"),
        (&[Opt::EndStalled(true)], "end_stalled needs dead_after"),
        (&[Opt::NoKeepalive, Opt::DeadAfter(5000)], "keepalive is off, but dead_after"),
        (&[Opt::DeadAfter(5000), Opt::Keepalive(45_000, 15_000, 5)], "known after 120s"),
        (&[Opt::SurviveIdle(5000), Opt::Keepalive(45_000, 15_000, 5)], "longer idle"),
        (&[Opt::Heartbeat(b"", 1000)], "heartbeat is empty"),
        (&[Opt::Heartbeat(PING, 0)], "heartbeat interval is zero"),
        (&[Opt::IdleLimit(0)], "idle limit is zero"),
        (&[Opt::IdleLimit(1000), Opt::Heartbeat(PING, 1000)], "idle limit is not above"),
    ];
    for (options, words) in refused {
        for outcome in [
            A::connect(&server.endpoint(), options).map(drop),
            A::listen("127.0.0.1:0", options).map(drop),
        ] {
            let failure = fails(outcome, ErrorKind::InvalidArgument);
            assert!(failure.message.contains(words), "{failure:?} does not contain {words:?}");
        }
    }
}

/// K3: nothing can be lost on the way to a Unix socket's peer; a peer that takes no data can be
/// told by nobody.
fn a_unix_socket_has_no_network<A: Api>() {
    let options = [Opt::DeadAfter(2000), Opt::SurviveIdle(2000), Opt::CloseTimeout(0)];
    let p = pair_with::<A>(Transport::Unix, &options);
    p.client.write_all(b"x").unwrap();
    fails(p.client.user_timeout(), ErrorKind::Unsupported);
    fails(p.client.state(), ErrorKind::Unsupported);
    let options = [Opt::DeadAfter(2000), Opt::EndStalled(true)];
    fails(A::connect(&p.server.endpoint(), &options), ErrorKind::InvalidArgument);
}

/// K5: whatever call it is that waits, on both transports.
fn heartbeats_are_sent_while_a_call_waits<A: Api>() {
    type Call<A> = fn(&<A as Api>::Client);
    let calls: [Call<A>; 4] = [
        |c| drop(c.read(&mut [0; 8])),
        |c| drop(c.read_exact(&mut [0; 8])),
        |c| drop(c.read_line(64)),
        |c| drop(c.wait_hangup(INFINITE)),
    ];
    for transport in TRANSPORTS {
        for call in calls {
            // The peer has no heartbeats: they would be what is waited for.
            let (endpoint, _dir) = somewhere(transport);
            let server = A::listen(&endpoint, &[Opt::CloseTimeout(0)]).unwrap();
            let options = [Opt::Heartbeat(PING, 30), Opt::CloseTimeout(0)];
            let client = A::connect(&server.endpoint(), &options).unwrap();
            let peer = server.accept().unwrap();
            thread::scope(|scope| {
                scope.spawn(|| call(&client));
                let mut got = [0; 3 * PING.len()];
                peer.read_exact(&mut got).unwrap();
                assert_eq!(got.chunks(PING.len()).collect::<Vec<_>>(), [PING; 3]);
                client.abort();
            });
            assert!(client.snapshot().unwrap().heartbeats >= 3);
        }
    }
}

/// K5: a write of another thread is not cut, however long it takes.
fn heartbeats_keep_out_of_writes<A: Api>() {
    const SIZE: usize = 4 << 20;
    let (client, mut peer) = with_raw_peer::<A>(&[Opt::Heartbeat(PING, 20)]);
    thread::scope(|scope| {
        scope.spawn(|| client.write_all(&vec![b'.'; SIZE]).unwrap());
        let reader = scope.spawn(|| client.read(&mut [0; 8]));
        // Read slowly at first, so that the write waits through many heartbeats' times.
        let mut got = vec![0; SIZE];
        let (slow, rest) = got.split_at_mut(1 << 16);
        for piece in slow.chunks_mut(1 << 12) {
            peer.read_exact(piece).unwrap();
            thread::sleep(Duration::from_millis(10));
        }
        peer.read_exact(rest).unwrap();
        assert!(got.iter().all(|b| *b == b'.'), "a heartbeat in the middle of a write");
        // After it they go on.
        let mut ping = [0; PING.len()];
        peer.read_exact(&mut ping).unwrap();
        assert_eq!(ping, PING);
        peer.write_all(b"x").unwrap();
        assert_eq!(reader.join().unwrap().unwrap(), 1);
    });
}

/// K5: only when nothing else was written for that time.
fn a_write_puts_a_heartbeat_off<A: Api>() {
    let (client, mut peer) = with_raw_peer::<A>(&[Opt::Heartbeat(PING, 300)]);
    client.set_read_timeout(50).unwrap();
    for _ in 0..12 {
        client.write_all(b".").unwrap();
        fails(client.read(&mut [0; 8]), ErrorKind::TimedOut);
    }
    let mut got = [0; 12];
    peer.read_exact(&mut got).unwrap();
    // A busy machine may sleep through one.
    assert!(client.snapshot().unwrap().heartbeats <= 2, "{:?}", client.snapshot());
    let (waited, _) = while_waiting(
        || client.wait_hangup(2000),
        || {
            while got != *b"PING\r\nPING\r\n" {
                got.rotate_left(1);
                peer.read_exact(&mut got[11..]).unwrap();
            }
            drop(peer);
        },
    );
    assert_eq!(waited.unwrap(), End::ClosedByPeer);
}

/// K5: the kernel may take a part of a heartbeat; the stream stays what it should be.
fn a_heartbeat_is_complete_before_the_next_write<A: Api>() {
    let long = vec![b'h'; 4 << 20]; // more than fits
    let options = [Opt::Heartbeat(&long, 100), Opt::CloseTimeout(0)];
    let (client, mut peer) = with_raw_peer::<A>(&options);
    client.set_read_timeout(150).unwrap();
    fails(client.read(&mut [0; 8]), ErrorKind::TimedOut);
    assert!(client.snapshot().unwrap().heartbeats == 1);
    thread::scope(|scope| {
        scope.spawn(|| client.write_all(b"after").unwrap());
        let mut got = vec![0; long.len()];
        peer.read_exact(&mut got).unwrap();
        assert!(got == long);
        let mut after = [0; 5];
        peer.read_exact(&mut after).unwrap();
        assert_eq!(&after, b"after");
    });
}

/// K5: a side that was ended says nothing more, and the call that waits does not spin.
fn no_heartbeat_after_the_end<A: Api>() {
    let (client, mut peer) = with_raw_peer::<A>(&[Opt::Heartbeat(PING, 20), Opt::CloseTimeout(0)]);
    client.shutdown_write().unwrap();
    client.set_read_timeout(200).unwrap();
    let before = system::thread_cpu_time();
    fails(client.read(&mut [0; 8]), ErrorKind::TimedOut);
    assert!(system::thread_cpu_time() - before < Duration::from_millis(50));
    let mut got = Vec::new();
    peer.read_to_end(&mut got).unwrap();
    assert_eq!(got, b"");
}

/// K5: a listener's options are its connections'; a handler that only waits sends them.
fn heartbeats_of_accepted_connections<A: Api>() {
    let server = A::listen("127.0.0.1:0", &[Opt::Heartbeat(PING, 30)]).unwrap();
    let service = server.serve(&[], Box::new(|client| drop(client.wait_hangup(INFINITE)))).unwrap();
    let mut peer = std::net::TcpStream::connect(server.endpoint()).unwrap();
    let mut got = [0; 2 * PING.len()];
    peer.read_exact(&mut got).unwrap();
    assert_eq!(got, *b"PING\r\nPING\r\n");
    drop(peer);
    service.drain(5000).unwrap();
}

/// K5: reading ends, once and again; a last word can be written, and closing is graceful.
fn the_idle_limit_ends_reading<A: Api>() {
    for transport in TRANSPORTS {
        let p = pair_with::<A>(transport, &[Opt::IdleLimit(60), Opt::CloseTimeout(2000)]);
        let (outcome, time) = timed(|| p.client.read(&mut [0; 8]));
        fails(outcome, ErrorKind::IdleLimit);
        assert!(time >= Duration::from_millis(50), "{time:?}");
        assert_eq!(p.client.end(), Some(End::IdleLimit));
        promptly(Duration::from_millis(30), || {
            let (outcome, time) = timed(|| p.client.read_line(10));
            fails(outcome, ErrorKind::IdleLimit);
            time
        });
        p.client.write_all(b"421 bye\n").unwrap();
        thread::scope(|scope| {
            scope.spawn(|| p.client.close().unwrap());
            // This side has the limit, too, and reads what is there all the same.
            assert_eq!(p.accepted.read_line(100).unwrap(), "421 bye");
            p.accepted.close().unwrap();
        });
        assert_eq!(p.client.end(), Some(End::IdleLimit));
    }
}

/// K5: it is for the silence of the peer, not for one call, and not for the time in which the
/// program did not read.
fn what_comes_puts_the_idle_limit_off<A: Api>() {
    let (client, mut peer) = with_raw_peer::<A>(&[Opt::IdleLimit(150)]);
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..8 {
                thread::sleep(Duration::from_millis(50));
                peer.write_all(b".").unwrap();
            }
        });
        client.read_exact(&mut [0; 8]).unwrap();
    });
    peer.write_all(b"here").unwrap();
    thread::sleep(Duration::from_millis(300));
    client.read_exact(&mut [0; 4]).unwrap();
    fails(client.read(&mut [0; 8]), ErrorKind::IdleLimit);
}

/// K5, K6: a peer whose kernel lives while its program hangs.
fn a_heartbeat_that_is_missed<A: Api>() {
    let options = [Opt::Heartbeat(PING, 30), Opt::IdleLimit(150), Opt::CloseTimeout(0)];
    let (client, mut peer) = with_raw_peer::<A>(&options);
    fails(client.read(&mut [0; 8]), ErrorKind::HeartbeatMissed);
    assert_eq!(client.end(), Some(End::HeartbeatMissed));
    let mut got = [0; PING.len()];
    peer.read_exact(&mut got).unwrap();
    assert_eq!(got, PING);
}

/// K5: the control: the same peer, but its program answers.
fn a_heartbeat_that_is_answered<A: Api>() {
    let options = [Opt::Heartbeat(PING, 50), Opt::IdleLimit(300), Opt::CloseTimeout(0)];
    let (client, mut peer) = with_raw_peer::<A>(&options);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut ping = [0; PING.len()];
            while peer.read_exact(&mut ping).is_ok() {
                peer.write_all(b"PONG").unwrap();
            }
        });
        // Longer than the limit.
        for _ in 0..12 {
            let mut pong = [0; 4];
            client.read_exact(&mut pong).unwrap();
            assert_eq!(&pong, b"PONG");
        }
        client.abort();
    });
}

/// K3, K5: for programs that do not wait in calls.
fn check_alive_says_when_to_ask_again<A: Api>() {
    let p = pair::<A>(Transport::Tcp);
    assert_eq!(p.client.check_alive().unwrap(), INFINITE);
    let options = [Opt::Heartbeat(PING, 50), Opt::IdleLimit(5000), Opt::DeadAfter(8000)];
    let (client, mut peer) = with_raw_peer::<A>(&options);
    client.set_nonblocking(true).unwrap();
    for _ in 0..2 {
        let next = client.check_alive().unwrap();
        assert!((0..=50).contains(&next), "{next}");
        thread::sleep(Duration::from_millis(u64::try_from(next).unwrap()));
    }
    eventually("a heartbeat was sent", || {
        client.check_alive().unwrap();
        client.snapshot().unwrap().heartbeats > 0
    });
    let mut got = [0; PING.len()];
    peer.read_exact(&mut got).unwrap();
    assert_eq!(got, PING);
    let client = A::connect(&p.server.endpoint(), &[Opt::IdleLimit(20)]).unwrap();
    client.set_nonblocking(true).unwrap();
    assert!(client.check_alive().unwrap() <= 20);
    thread::sleep(Duration::from_millis(30));
    fails(client.check_alive(), ErrorKind::IdleLimit);
    // What has come and was not read is no silence.
    let accepted = p.server.accept().unwrap();
    accepted.write_all(b"x").unwrap();
    eventually("it has come", || client.snapshot().unwrap().unread == 1);
    assert!(client.check_alive().unwrap() <= 20);
}

fn a_closed_socket_is_not_alive<A: Api>() {
    let p = pair_with::<A>(Transport::Tcp, &[Opt::Heartbeat(PING, 1000), Opt::CloseTimeout(0)]);
    p.client.close().unwrap();
    fails(p.client.check_alive(), ErrorKind::Closed);
    p.accepted.shutdown_write().unwrap();
    let (client, peer) = with_raw_peer::<A>(&[]);
    system::reset(peer);
    eventually("the reset came", || client.state().unwrap() == TcpState::Closed as i32);
    fails(client.read(&mut [0; 8]), ErrorKind::Reset);
    fails(client.check_alive(), ErrorKind::Reset);
}

/// K6: those that need no network; labs_alive.rs has the others.
fn every_end_has_its_reason<A: Api>() {
    for transport in TRANSPORTS {
        let p = pair::<A>(transport);
        assert_eq!((p.client.end(), p.accepted.end()), (None, None));
        p.client.close().unwrap();
        assert_eq!(p.client.end(), Some(End::ClosedHere));
        assert_eq!(p.accepted.read(&mut [0; 8]).unwrap(), 0);
        assert_eq!(p.accepted.end(), Some(End::ClosedByPeer));

        let p = pair::<A>(transport);
        p.client.shutdown_write().unwrap();
        assert_eq!(p.accepted.wait_hangup(INFINITE).unwrap(), End::ClosedByPeer);
        assert_eq!(p.accepted.end(), Some(End::ClosedByPeer));

        let p = pair::<A>(transport);
        let token = A::token();
        p.client.set_cancel(Some(&token));
        token.fire();
        fails(p.client.read(&mut [0; 8]), ErrorKind::Cancelled);
        assert_eq!(p.client.end(), None, "a cancel ends calls, not the connection");
        let _ = p.client.close();
        assert_eq!(p.client.end(), Some(End::Cancelled));

        let p = pair::<A>(transport);
        p.client.release().unwrap();
        assert_eq!(p.client.end(), Some(End::ClosedHere));
    }
    let p = pair::<A>(Transport::Tcp);
    p.client.abort();
    assert_eq!(p.client.end(), Some(End::ClosedHere));
    fails(p.accepted.read(&mut [0; 8]), ErrorKind::Reset);
    assert_eq!(p.accepted.end(), Some(End::ResetByPeer));
    // Found by writing.
    let (client, peer) = with_raw_peer::<A>(&[]);
    system::reset(peer);
    eventually("the reset came", || client.write_all(b"x").is_err());
    assert_eq!(client.end(), Some(End::ResetByPeer));
}

/// K6: what comes later changes nothing.
fn the_first_reason_stays<A: Api>() {
    let p = pair::<A>(Transport::Tcp);
    p.client.close().unwrap();
    assert_eq!(p.accepted.read(&mut [0; 8]).unwrap(), 0);
    let _ = p.accepted.write_all(b"to nobody");
    eventually("the reset came", || p.accepted.write_all(b"x").is_err());
    assert_eq!(p.accepted.end(), Some(End::ClosedByPeer));
    p.accepted.close().unwrap();
    assert_eq!(p.accepted.end(), Some(End::ClosedByPeer));
    let (client, peer) = with_raw_peer::<A>(&[]);
    system::reset(peer);
    fails(client.read(&mut [0; 8]), ErrorKind::Reset);
    client.close().unwrap();
    assert_eq!(client.end(), Some(End::ResetByPeer));
}

/// N1: what was sent and received is what the snapshot counts.
fn a_snapshot_counts<A: Api>() {
    let p = pair::<A>(Transport::Tcp);
    p.client.write_all(&[1; 1000]).unwrap();
    p.accepted.read_exact(&mut [0; 700]).unwrap();
    p.accepted.write_all(b"pong").unwrap();
    p.client.read_exact(&mut [0; 4]).unwrap();
    eventually("all is acknowledged", || p.accepted.snapshot().unwrap().unacknowledged == 0);
    let (c, a) = (p.client.snapshot().unwrap(), p.accepted.snapshot().unwrap());
    assert_eq!((c.state, c.end), (TcpState::Established as i32, None));
    assert_eq!((c.bytes_sent, c.bytes_received), (1000, 4));
    assert_eq!((a.bytes_sent, a.bytes_received), (4, 1000));
    assert_eq!((a.unread, c.unread, c.unsent, c.retransmits), (300, 0, 0, 0));
    assert!(c.rtt_us > 0 && c.rtt_variation_us > 0 && c.min_rtt_us >= 0, "{c:?}");
    assert!(c.mss > 500 && c.congestion_window > 0 && c.peer_window > 1000, "{c:?}");
    assert!(c.segments_sent >= 3 && c.segments_received >= 2, "{c:?}");
    assert_eq!(c.congestion_control, system::congestion_control(p.client.fd().unwrap()));
    thread::sleep(Duration::from_millis(30));
    let later = p.client.snapshot().unwrap();
    assert!(later.last_received_us >= c.last_received_us + 20_000, "{later:?}");
    assert!(later.last_sent_us >= c.last_sent_us + 20_000, "{later:?}");
    // What was read ahead is unread.
    p.accepted.write_all(b"one\ntwo\n").unwrap();
    p.client.read_line(10).unwrap();
    assert_eq!(p.client.snapshot().unwrap().unread, 4);
}

/// N1: that it does not read is what one sees.
fn a_snapshot_of_a_peer_that_does_not_read<A: Api>() {
    let p = small_pair::<A>(Transport::Tcp);
    p.client.set_write_timeout(300).unwrap();
    let failure = fails(p.client.write_all(&vec![0; 1 << 20]), ErrorKind::TimedOut);
    let s = p.client.snapshot().unwrap();
    let a = p.accepted.snapshot().unwrap();
    assert!(s.unsent + s.unacknowledged > 0, "{s:?}");
    let written = i64::try_from(failure.transferred).unwrap();
    assert_eq!(s.unsent + s.unacknowledged + a.unread, written, "{s:?} {a:?}");
}

/// N1: a last copy if it was asked for, or if an error ended the connection; else what costs
/// nothing. Always with the reason.
fn the_last_snapshot<A: Api>() {
    let p = pair_with::<A>(Transport::Tcp, &[Opt::LastSnapshot(true), Opt::CloseTimeout(0)]);
    p.client.write_all(b"12345").unwrap();
    p.accepted.read_exact(&mut [0; 5]).unwrap();
    p.client.close().unwrap();
    p.accepted.abort();
    for (s, sent, received) in
        // The FIN has a sequence number, too.
        [(p.client.snapshot().unwrap(), 5, 0), (p.accepted.snapshot().unwrap(), 0, 6)]
    {
        assert_eq!((s.bytes_sent, s.bytes_received), (sent, received));
        assert_eq!((s.state, s.end), (TcpState::Closed as i32, Some(End::ClosedHere)));
    }
    let p = pair::<A>(Transport::Tcp);
    p.client.write_all(b"12345").unwrap();
    p.client.close().unwrap();
    let s = p.client.snapshot().unwrap();
    assert_eq!((s.bytes_sent, s.rtt_us, s.congestion_control.as_str()), (-1, -1, ""));
    assert_eq!((s.state, s.end), (TcpState::Closed as i32, Some(End::ClosedHere)));
    let (client, mut peer) = with_raw_peer::<A>(&[]);
    client.write_all(b"12345").unwrap();
    peer.read_exact(&mut [0; 5]).unwrap();
    system::reset(peer);
    fails(client.read(&mut [0; 8]), ErrorKind::Reset);
    client.close().unwrap();
    let s = client.snapshot().unwrap();
    assert_eq!((s.bytes_sent, s.end), (5, Some(End::ResetByPeer)));
}

/// N1: what is TCP's is not told, and not made up.
fn a_snapshot_of_a_unix_socket<A: Api>() {
    let p = pair::<A>(Transport::Unix);
    p.client.write_all(b"123").unwrap();
    let s = p.accepted.snapshot().unwrap();
    assert_eq!((s.state, s.end, s.unread), (0, None, 3));
    assert_eq!((s.rtt_us, s.mss, s.bytes_received, s.unsent), (-1, -1, -1, -1));
    p.accepted.close().unwrap();
    assert_eq!(p.accepted.snapshot().unwrap().end, Some(End::ClosedHere));
}

/// S5: LISTEN, ESTABLISHED, and those of the end; SYN-SENT and SYN-RECEIVED are the
/// handshake's.
fn states_have_the_names_of_rfc_9293<A: Api>() {
    let p = pair::<A>(Transport::Tcp);
    let is = |c: &A::Client, state: TcpState| {
        eventually(&state.to_string(), || c.state().unwrap() == state as i32);
    };
    assert_eq!(p.server.state(), TcpState::Listen as i32);
    is(&p.client, TcpState::Established);
    is(&p.accepted, TcpState::Established);
    p.client.shutdown_write().unwrap();
    is(&p.client, TcpState::FinWait2);
    is(&p.accepted, TcpState::CloseWait);
    p.accepted.shutdown_write().unwrap();
    is(&p.accepted, TcpState::Closed);
    p.client.close().unwrap();
    assert_eq!(p.client.state().unwrap(), TcpState::Closed as i32);
    p.server.close();
    assert_eq!(p.server.state(), TcpState::Closed as i32);
    let other = pair::<A>(Transport::Unix);
    assert_eq!(other.server.state(), TcpState::Listen as i32);
}

/// K3, K4: what was asked for holds; the socket is left as it was.
fn keepalive_that_would_break_a_promise<A: Api>() {
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    for option in [Opt::DeadAfter(16_000), Opt::SurviveIdle(16_000)] {
        let client = A::connect(&server.endpoint(), &[option]).unwrap();
        let before = effective::<A>(&client);
        fails(client.set_keepalive(45_000, 15_000, 5), ErrorKind::InvalidArgument);
        fails(client.disable_keepalive(), ErrorKind::InvalidArgument);
        assert_eq!(effective::<A>(&client), before);
        client.set_keepalive(2000, 2000, 2).unwrap();
        assert_eq!(effective::<A>(&client), (2000, 2000, 2));
    }
}

/// K6: nobody reads, and it is told all the same.
fn check_alive_finds_a_reset<A: Api>() {
    for options in [&[][..], &[Opt::DeadAfter(8000)]] {
        let (client, peer) = with_raw_peer::<A>(options);
        client.set_nonblocking(true).unwrap();
        client.check_alive().unwrap();
        system::reset(peer);
        eventually("the reset came", || client.state().unwrap() == TcpState::Closed as i32);
        fails(client.check_alive(), ErrorKind::Reset);
        assert_eq!(client.end(), Some(End::ResetByPeer));
        fails(client.read(&mut [0; 8]), ErrorKind::Reset);
    }
}

/// K5: a program that hangs ends its side no more than it answers.
fn closing_after_heartbeats_were_missed_takes_no_time<A: Api>() {
    let options = [Opt::Heartbeat(PING, 30), Opt::IdleLimit(100), Opt::CloseTimeout(5000)];
    let (client, _peer) = with_raw_peer::<A>(&options);
    fails(client.read(&mut [0; 8]), ErrorKind::HeartbeatMissed);
    let (outcome, time) = timed(|| client.close());
    outcome.unwrap();
    assert!(time < Duration::from_millis(1000), "{time:?}");
    assert_eq!(client.end(), Some(End::HeartbeatMissed));
}

/// K3, K5: whatever is to be looked at, a wait sleeps; on both transports.
fn waiting_costs_no_processor_time<A: Api>() {
    for transport in TRANSPORTS {
        for option in [
            Opt::DeadAfter(2000),
            Opt::SurviveIdle(2000),
            Opt::IdleLimit(60_000),
            Opt::Heartbeat(PING, 60_000),
        ] {
            let (endpoint, _dir) = somewhere(transport);
            let server = A::listen(&endpoint, &[]).unwrap();
            let options = [option, Opt::ReadTimeout(700), Opt::CloseTimeout(0)];
            let client = A::connect(&server.endpoint(), &options).unwrap();
            let before = system::thread_cpu_time();
            fails(client.read(&mut [0; 8]), ErrorKind::TimedOut);
            let used = system::thread_cpu_time() - before;
            assert!(used < Duration::from_millis(50), "{used:?} of 700 ms");
            assert_ne!(client.check_alive().unwrap(), 0, "and asks to be called all the time");
        }
    }
}

/// K5, E1: a write after the end of this side fails at once, though a heartbeat was cut by it.
fn a_heartbeat_that_cannot_be_completed<A: Api>() {
    let long = vec![b'h'; 8 << 20]; // more than fits
    let options = [Opt::Heartbeat(&long, 50), Opt::WriteTimeout(5000), Opt::CloseTimeout(0)];
    let (client, _peer) = with_raw_peer::<A>(&options);
    client.set_read_timeout(120).unwrap();
    fails(client.read(&mut [0; 8]), ErrorKind::TimedOut);
    client.shutdown_write().unwrap();
    thread::scope(|scope| {
        let _end = common::OnDrop(|| client.abort());
        let writer = scope.spawn(|| client.write_all(b"after"));
        eventually("it fails", || writer.is_finished());
        fails(writer.join().unwrap(), ErrorKind::WrongState);
    });
}

/// K5: a caller that has still to write the rest of a message is in the middle of a write.
fn no_heartbeat_within_a_message_in_parts<A: Api>() {
    let (client, mut peer) = with_raw_peer::<A>(&[Opt::Heartbeat(PING, 20), Opt::CloseTimeout(0)]);
    client.set_nonblocking(true).unwrap();
    let message = vec![b'm'; 12 << 20];
    let done = fails(client.write_all(&message), ErrorKind::WouldBlock).transferred;
    assert!(done > 0);
    thread::sleep(Duration::from_millis(40));
    let mut got = vec![0; done];
    peer.read_exact(&mut got).unwrap();
    client.check_alive().unwrap();
    client.write_all(b"").unwrap(); // finishes nothing
    thread::sleep(Duration::from_millis(40));
    client.check_alive().unwrap();
    client.write_all(b"the rest").unwrap();
    got.resize(8, 0);
    peer.read_exact(&mut got).unwrap();
    assert_eq!(got, b"the rest");
    // Finished: they go on.
    thread::sleep(Duration::from_millis(40));
    client.check_alive().unwrap();
    got.resize(PING.len(), 0);
    peer.read_exact(&mut got).unwrap();
    assert_eq!(got, PING);
}

/// K5, V3: a broadcast does not go into a heartbeat of which the kernel took a part.
fn a_broadcast_waits_for_its_heartbeat<A: Api>() {
    let long = vec![b'h'; 8 << 20]; // more than fits
    let server = A::listen("127.0.0.1:0", &[Opt::Heartbeat(&long, 100)]).unwrap();
    let handler = |client: &A::Client| drop(client.wait_hangup(INFINITE));
    let service = server.serve(&[], Box::new(handler)).unwrap();
    let mut peer = std::net::TcpStream::connect(server.endpoint()).unwrap();
    eventually("a heartbeat has begun", || {
        system::readable_bytes(std::os::fd::AsRawFd::as_raw_fd(&peer)) > 0
    });
    eventually("it is served", || service.connections() == 1);
    assert_eq!(service.broadcast(b"NEWS"), (0, 1), "it does not keep up");
    let mut got = Vec::new();
    let _ = peer.read_to_end(&mut got);
    assert!(got.iter().all(|b| *b == b'h'), "in the middle of a heartbeat");
}
