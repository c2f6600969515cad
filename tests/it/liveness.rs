//! K3: dead_after, as far as it needs no network. K4: middlebox_timeout. K5: heartbeats. K6: the
//! idle timeout. K7: close reasons. N1: statistics. S5: TCP states.

use crate::support::libc;
use crate::support::os::AsRawFd;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
#[cfg(feature = "serve")]
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
#[cfg(feature = "serve")]
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use crate::support;
use crate::support::process;
use crate::support::process::{Helper, next_command, report};
use crate::support::timing::undisturbed;
use crate::support::{
    Api, Client, INFINITE, Opt, Server, TRANSPORTS, Token, Transport, eventually, fails, limits,
    pair, pair_with, promptly, small_pair, somewhere, system, timed, timing, while_waiting,
    with_raw_peer,
};
#[cfg(feature = "serve")]
use crate::support::{On, PendingConnect, Service};
use keepsock::{CloseReason, ErrorKind, TcpState};

both_apis![
    dead_after_is_turned_off_without_a_free_descriptor,
    dead_after_without_keepalive_sets_fitting_keepalive,
    middlebox_timeout_sets_fitting_keepalive,
    fail_on_stall_sets_the_kernel_option,
    liveness_options_with_contradiction_are_rejected,
    dead_after_on_unix_socket_has_no_effect,
    heartbeat_while_a_call_waits_is_sent,
    heartbeat_during_write_waits_for_its_end,
    heartbeat_after_write_is_postponed,
    partial_heartbeat_is_completed_before_next_write,
    heartbeat_after_shutdown_write_is_not_sent,
    idle_timeout_ends_each_read,
    received_bytes_restart_the_idle_timeout,
    unanswered_heartbeat_ends_connection,
    answered_heartbeat_keeps_connection,
    check_liveness_counts_unread_answers_to_heartbeats,
    check_liveness_returns_time_of_next_call,
    check_liveness_of_closed_socket_fails,
    heartbeat_in_options_is_removed,
    check_liveness_with_a_long_timeout_returns_at_most_an_int,
    close_reason_names_each_cause,
    close_reason_after_later_events_is_the_first,
    stats_count_sent_and_received_bytes,
    stats_of_stalled_peer_show_unsent_bytes,
    stats_after_close_are_kept,
    stats_of_unix_socket_have_no_tcp_values,
    stats_make_only_the_needed_system_calls,
    stats_report_the_user_timeout_of_the_program,
    tcp_states_have_names_of_rfc_9293,
    keepalive_that_contradicts_dead_after_is_rejected,
    check_liveness_after_reset_reports_it,
    close_after_heartbeat_timeout_returns_at_once,
    read_with_liveness_options_uses_no_processor,
    heartbeat_during_message_in_parts_waits_for_its_end,
    write_after_partial_heartbeat_and_shutdown_fails,
    heartbeat_timeout_while_writing_sends_heartbeats_first,
    heartbeat_timeout_without_answer_is_not_the_idle_timeout,
    idle_timeout_while_sending_to_a_reader_does_not_end,
    idle_timeout_after_one_write_to_a_slow_reader_counts_acknowledgments,
    idle_timeout_after_the_end_of_stream_ends_a_write,
    idle_timeout_receive_only_while_sending_ends_connection,
    idle_timeout_with_heartbeats_only_ends_connection,
    idle_timeout_with_a_byte_unread_ends_connection,
    liveness_after_an_absence_of_calls_keeps_connection,
    set_dead_after_on_open_connection_applies,
    set_dead_after_on_failure_changes_nothing,
    set_idle_timeout_on_open_connection_applies,
    set_heartbeat_on_open_connection_applies,
    set_heartbeat_on_failure_changes_nothing,
    set_heartbeat_within_a_message_waits_for_its_end,
    #[cfg(feature = "serve")] {
        heartbeat_of_listener_applies_to_accepted_connections,
        broadcast_does_not_split_a_heartbeat,
        liveness_after_sigstop_keeps_answering_peers,
        liveness_of_a_stopped_peer_process_ends_by_heartbeat_only,
    }
];

pub(super) const PING: &[u8] = b"PING\r\n";

fn effective<A: Api>(client: &A::Client) -> (i64, i64, u32) {
    client.keepalive().unwrap().unwrap()
}

/// K3: dead_after sets keepalive in the kernel on both sides, and the retransmission limit where
/// the system has one.
fn dead_after_without_keepalive_sets_fitting_keepalive<A: Api>() {
    const TCP_RTO_MAX_MS: libc::c_int = 44;
    let p = pair_with::<A>(Transport::Tcp, &[Opt::DeadAfter(16_000), Opt::CloseTimeout(0)]);
    for client in [&p.client, &p.accepted] {
        let (idle, interval, count) = effective::<A>(client);
        assert_eq!(idle + interval * i64::from(count), 16_000);
        assert_eq!(client.stats().unwrap().user_timeout_ms, INFINITE);
        let fd = client.fd().unwrap();
        if let Some(ms) = system::try_option(fd, libc::IPPROTO_TCP, TCP_RTO_MAX_MS) {
            assert_eq!(ms, 2000);
        }
    }
    // Shorter keepalive options of the program are kept.
    let own = [Opt::Keepalive(2000, 1000, 2), Opt::DeadAfter(16_000)];
    let client = A::connect(&p.server.endpoint(), &own).unwrap();
    assert_eq!(effective::<A>(&client), (2000, 1000, 2));
}

/// K4: middlebox_timeout sets keepalive values that fit the time.
fn middlebox_timeout_sets_fitting_keepalive<A: Api>() {
    let p = pair_with::<A>(Transport::Tcp, &[Opt::MiddleboxTimeout(20_000), Opt::CloseTimeout(0)]);
    for client in [&p.client, &p.accepted] {
        assert_eq!(effective::<A>(client), (10_000, 5000, 22));
    }
}

/// K3: fail_on_stall is read back from the kernel, and accepted connections inherit it.
fn fail_on_stall_sets_the_kernel_option<A: Api>() {
    let options = [Opt::DeadAfter(4321), Opt::FailOnStall(true), Opt::CloseTimeout(0)];
    let p = pair_with::<A>(Transport::Tcp, &options);
    for client in [&p.client, &p.accepted] {
        assert_eq!(client.stats().unwrap().user_timeout_ms, 4321);
        // The dead-peer detection still runs, because the kernel's timer starts at the first byte.
        assert!((1..=4321).contains(&client.check_liveness().unwrap()));
    }
    p.client.close().unwrap();
    assert_eq!(p.client.stats().unwrap().user_timeout_ms, INFINITE);
}

/// K3, K4, K5: contradictory or invalid options fail with an error that names them.
fn liveness_options_with_contradiction_are_rejected<A: Api>() {
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    let refused: [(&[Opt<'_, A>], &str); 16] = [
        (&[Opt::DeadAfter(1999)], "dead_after 1,999 ms is not within 2,000 ms to"),
        (
            &[Opt::DeadAfter(i64::MAX)],
            "dead_after 9,223,372,036,854,775,807 ms is not within 2,000 ms to",
        ),
        (&[Opt::DeadAfter(0)], "dead_after 0 ms is not within"),
        (&[Opt::MiddleboxTimeout(1000)], "middlebox_timeout 1,000 ms is not within"),
        (&[Opt::FailOnStall(true)], "fail_on_stall needs dead_after"),
        (&[Opt::NoKeepalive, Opt::DeadAfter(5000)], "keepalive is off, but dead_after"),
        (
            &[Opt::DeadAfter(5000), Opt::Keepalive(46_000, 15_000, 5)],
            "detects a dead peer after 121,000 ms, and dead_after is 5,000 ms",
        ),
        (
            &[Opt::MiddleboxTimeout(5000), Opt::Keepalive(46_000, 15_000, 5)],
            "a longer idle time than middlebox_timeout, 5,000 ms",
        ),
        (&[Opt::Heartbeat(b"", 1000)], "heartbeat has no bytes"),
        (&[Opt::Heartbeat(PING, 0)], "heartbeat interval must be greater"),
        (&[Opt::IdleTimeout(0)], "idle_timeout must be greater than zero"),
        (
            &[Opt::IdleTimeout(1000), Opt::Heartbeat(PING, 1000)],
            "idle_timeout 1,000 ms must be greater than the heartbeat interval, 1,000 ms",
        ),
        (&[Opt::HeartbeatTimeout(1000)], "heartbeat_timeout needs heartbeat"),
        (&[Opt::IdleTimeout(2000), Opt::HeartbeatTimeout(1000)], "heartbeat_timeout needs"),
        (
            &[Opt::Heartbeat(PING, 1000), Opt::HeartbeatTimeout(0)],
            "heartbeat_timeout must be greater",
        ),
        (&[Opt::IdleReceiveOnly(true)], "idle_receive_only needs idle_timeout"),
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

/// K3: on a Unix socket no data can be lost, so dead_after has no effect, and fail_on_stall is not
/// supported.
fn dead_after_on_unix_socket_has_no_effect<A: Api>() {
    let options = [Opt::DeadAfter(2000), Opt::CloseTimeout(0)];
    let p = pair_with::<A>(Transport::Unix, &options);
    p.client.write_all(b"x").unwrap();
    assert_eq!(p.client.stats().unwrap().user_timeout_ms, INFINITE);
    assert_eq!(p.client.state().unwrap(), 0, "a Unix socket has no TCP state");
    let options = [Opt::DeadAfter(2000), Opt::FailOnStall(true)];
    fails(A::connect(&p.server.endpoint(), &options), ErrorKind::InvalidArgument);
}

/// K5: heartbeats are sent while any call waits, on both transports.
fn heartbeat_while_a_call_waits_is_sent<A: Api>() {
    type Call<A> = fn(&<A as Api>::Client);
    let calls: [Call<A>; 4] = [
        |c| drop(c.read(&mut [0; 8])),
        |c| drop(c.read_exact(&mut [0; 8])),
        |c| drop(c.read_line(64)),
        |c| drop(c.wait_hangup(INFINITE)),
    ];
    for transport in TRANSPORTS {
        for call in calls {
            // The peer sends no heartbeats, because the call would return them as data.
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
            assert!(client.stats().unwrap().heartbeats >= 3);
        }
    }
}

/// K5: a heartbeat does not split a write of another thread, however long the write takes.
fn heartbeat_during_write_waits_for_its_end<A: Api>() {
    let bytes = vec![b'.'; 4 << 20];
    heartbeats_wait_for_the_end_of::<A>(&bytes, |client| client.write_all(&bytes).unwrap());
}

/// Checks that heartbeats do not split the bytes of a call that sends them, and continue after it.
pub(super) fn heartbeats_wait_for_the_end_of<A: Api>(
    bytes: &[u8],
    send: impl FnOnce(&A::Client) + Send,
) {
    let options = [Opt::Heartbeat(PING, 20), Opt::CloseTimeout(0)];
    let (client, mut peer) = with_raw_peer::<A>(&options);
    thread::scope(|scope| {
        let _end = support::OnDrop(|| client.abort());
        scope.spawn(|| send(&client));
        let mut got = vec![0; bytes.len()];
        peer.read_exact(&mut got[..1]).unwrap();
        // The call has begun, so a heartbeat of this read would split its bytes.
        let reader = scope.spawn(|| client.read(&mut [0; 8]));
        // The peer reads slowly at first, so that the call waits for many heartbeat intervals.
        let (slow, rest) = got[1..].split_at_mut(1 << 16);
        for piece in slow.chunks_mut(1 << 12) {
            peer.read_exact(piece).unwrap();
            thread::sleep(Duration::from_millis(10));
        }
        peer.read_exact(rest).unwrap();
        assert!(got == bytes, "a heartbeat between the bytes");
        let mut ping = [0; PING.len()];
        peer.read_exact(&mut ping).unwrap();
        assert_eq!(ping, PING);
        peer.write_all(b"x").unwrap();
        assert_eq!(reader.join().unwrap().unwrap(), 1);
    });
}

/// K5: a heartbeat is sent only if nothing else was written for the interval.
fn heartbeat_after_write_is_postponed<A: Api>() {
    let (client, mut peer) = with_raw_peer::<A>(&[Opt::Heartbeat(PING, 1000)]);
    client.set_read_timeout(100).unwrap();
    let mut got = [0; 12];
    let mut late = 0;
    for _ in 0..12 {
        let start = Instant::now();
        client.write_all(b".").unwrap();
        fails(client.read(&mut [0; 8]), ErrorKind::TimedOut);
        // A busy machine may oversleep an interval.
        late += start.elapsed().as_secs() as i64;
        peer.read_exact(&mut got[..1]).unwrap();
    }
    assert!(client.stats().unwrap().heartbeats <= late, "{late}, {:?}", client.stats());
    let (waited, _) = while_waiting(
        || client.wait_hangup(20_000),
        || {
            while got != *b"PING\r\nPING\r\n" {
                got.rotate_left(1);
                peer.read_exact(&mut got[11..]).unwrap();
            }
            drop(peer);
        },
    );
    assert_eq!(waited.unwrap(), CloseReason::PeerClosed);
}

/// Reads until the first heartbeat is sent. A delay of this thread may take the whole time of a read.
fn send_one_heartbeat<A: Api>(client: &A::Client) {
    client.set_read_timeout(500).unwrap();
    eventually("one heartbeat is sent", || {
        fails(client.read(&mut [0; 8]), ErrorKind::TimedOut);
        client.stats().unwrap().heartbeats == 1
    });
}

/// K5: the kernel may accept a part of a heartbeat. The rest is sent before the next write.
fn partial_heartbeat_is_completed_before_next_write<A: Api>() {
    let long = vec![b'h'; 4 << 20]; // more than fits
    let options = [Opt::Heartbeat(&long, 100), Opt::CloseTimeout(0)];
    let (client, mut peer) = with_raw_peer::<A>(&options);
    system::shrink_buffers(client.fd().unwrap());
    system::shrink_buffers(peer.as_raw_fd());
    send_one_heartbeat::<A>(&client);
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

/// K5: after shutdown_write no heartbeat is sent, and a waiting call uses no processor time.
fn heartbeat_after_shutdown_write_is_not_sent<A: Api>() {
    let (client, mut peer) = with_raw_peer::<A>(&[Opt::Heartbeat(PING, 20), Opt::CloseTimeout(0)]);
    client.shutdown_write().unwrap();
    client.set_read_timeout(200).unwrap();
    promptly(Duration::from_millis(50), || {
        let before = system::thread_cpu_time();
        fails(client.read(&mut [0; 8]), ErrorKind::TimedOut);
        system::thread_cpu_time() - before
    });
    let mut got = Vec::new();
    peer.read_to_end(&mut got).unwrap();
    assert_eq!(got, b"");
}

/// K5: accepted connections inherit the heartbeat of the listener. A handler that only waits sends
/// heartbeats.
#[cfg(feature = "serve")]
fn heartbeat_of_listener_applies_to_accepted_connections<A: Api>() {
    let server = A::listen("127.0.0.1:0", &[Opt::Heartbeat(PING, 30)]).unwrap();
    let service = server.serve(&[], Box::new(|client| drop(client.wait_hangup(INFINITE)))).unwrap();
    let mut peer = std::net::TcpStream::connect(server.endpoint()).unwrap();
    let mut got = [0; 2 * PING.len()];
    peer.read_exact(&mut got).unwrap();
    assert_eq!(got, *b"PING\r\nPING\r\n");
    drop(peer);
    service.drain(5000).unwrap();
}

/// K5: the idle timeout ends each read. The program can still write a last message, and the close
/// is graceful.
fn idle_timeout_ends_each_read<A: Api>() {
    for transport in TRANSPORTS {
        let p = pair_with::<A>(transport, &[Opt::IdleTimeout(60), Opt::CloseTimeout(20_000)]);
        let (outcome, time) = timed(|| p.client.read(&mut [0; 8]));
        fails(outcome, ErrorKind::IdleTimeout);
        assert!(time >= Duration::from_millis(50), "{time:?}");
        assert_eq!(p.client.close_reason(), Some(CloseReason::IdleTimeout));
        promptly(Duration::from_millis(30), || {
            let (outcome, time) = timed(|| p.client.read_line(10));
            fails(outcome, ErrorKind::IdleTimeout);
            time
        });
        p.client.write_all(b"421 bye\n").unwrap();
        thread::scope(|scope| {
            scope.spawn(|| p.client.close().unwrap());
            // This side also has the timeout, and reads the buffered bytes nevertheless.
            assert_eq!(p.accepted.read_line(100).unwrap(), "421 bye");
            p.accepted.close().unwrap();
        });
        assert_eq!(p.client.close_reason(), Some(CloseReason::IdleTimeout));
    }
}

/// K5: the idle timeout measures the silence of the peer. It does not measure one call, and not the
/// time in which the program did not read.
fn received_bytes_restart_the_idle_timeout<A: Api>() {
    undisturbed(received_bytes_restart::<A>);
}

fn received_bytes_restart<A: Api>() {
    let (client, mut peer) = with_raw_peer::<A>(&[Opt::IdleTimeout(1500)]);
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..8 {
                thread::sleep(Duration::from_millis(300));
                peer.write_all(b".").unwrap();
            }
        });
        client.read_exact(&mut [0; 8]).unwrap();
    });
    peer.write_all(b"here").unwrap();
    thread::sleep(Duration::from_millis(2000));
    client.read_exact(&mut [0; 4]).unwrap();
    fails(client.read(&mut [0; 8]), ErrorKind::IdleTimeout);
}

/// K5, K6: a peer with a live kernel and a hanging program is detected.
fn unanswered_heartbeat_ends_connection<A: Api>() {
    let options = [Opt::Heartbeat(PING, 30), Opt::HeartbeatTimeout(150), Opt::CloseTimeout(0)];
    let (client, mut peer) = with_raw_peer::<A>(&options);
    fails(client.read(&mut [0; 8]), ErrorKind::HeartbeatTimeout);
    assert_eq!(client.close_reason(), Some(CloseReason::HeartbeatTimeout));
    let mut got = [0; PING.len()];
    peer.read_exact(&mut got).unwrap();
    assert_eq!(got, PING);
}

/// K5: the control case: the program of the same peer answers.
fn answered_heartbeat_keeps_connection<A: Api>() {
    undisturbed(answered_heartbeat_keeps::<A>);
}

fn answered_heartbeat_keeps<A: Api>() {
    let options = [
        Opt::Heartbeat(PING, 200),
        Opt::HeartbeatTimeout(1500),
        Opt::IdleTimeout(2000),
        Opt::CloseTimeout(0),
    ];
    let (client, mut peer) = with_raw_peer::<A>(&options);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut ping = [0; PING.len()];
            while peer.read_exact(&mut ping).is_ok() {
                peer.write_all(b"PONG").unwrap();
            }
        });
        // Longer than the timeout.
        for _ in 0..12 {
            let mut pong = [0; 4];
            client.read_exact(&mut pong).unwrap();
            assert_eq!(&pong, b"PONG");
        }
        client.abort();
    });
}

/// K5: a program that calls only check_liveness reads nothing. A peer that answers heartbeats stays
/// connected. A peer with only an old unread byte does not.
fn check_liveness_counts_unread_answers_to_heartbeats<A: Api>() {
    for transport in TRANSPORTS {
        for answers in [true, false] {
            undisturbed(|| check_while_unread::<A>(transport, answers));
        }
    }
}

fn check_while_unread<A: Api>(transport: Transport, answers: bool) {
    let (endpoint, _dir) = somewhere(transport);
    let server = A::listen(&endpoint, &[Opt::CloseTimeout(0)]).unwrap();
    let options = [Opt::Heartbeat(PING, 50), Opt::HeartbeatTimeout(1500), Opt::CloseTimeout(0)];
    let client = A::connect(&server.endpoint(), &options).unwrap();
    let peer = server.accept().unwrap();
    client.set_nonblocking(true).unwrap();
    peer.write_all(b"x").unwrap();
    thread::scope(|scope| {
        let _end = support::OnDrop(|| client.abort());
        scope.spawn(|| {
            while peer.read(&mut [0; PING.len()]).is_ok_and(|n| n > 0) {
                if answers && peer.write_all(b"!").is_err() {
                    break;
                }
            }
        });
        let start = Instant::now();
        let failed = loop {
            match client.check_liveness() {
                Err(failure) => break Some(failure),
                Ok(_) if answers && start.elapsed() > Duration::from_secs(3) => break None,
                Ok(_) => thread::sleep(Duration::from_millis(10)),
            }
            assert!(start.elapsed() < Duration::from_secs(30), "it stays");
        };
        assert_eq!(failed.is_none(), answers);
        let end = failed.map(|failure| failure.is(ErrorKind::HeartbeatTimeout));
        assert_ne!(end, Some(false));
    });
}

/// K3, K5: check_liveness returns the time until its next call, for programs that do not wait in
/// calls.
fn check_liveness_returns_time_of_next_call<A: Api>() {
    let p = pair::<A>(Transport::Tcp);
    assert_eq!(p.client.check_liveness().unwrap(), INFINITE);
    let options = [Opt::Heartbeat(PING, 50), Opt::IdleTimeout(5000), Opt::DeadAfter(8000)];
    let (client, mut peer) = with_raw_peer::<A>(&options);
    client.set_nonblocking(true).unwrap();
    for _ in 0..2 {
        let next = client.check_liveness().unwrap();
        assert!((0..=50).contains(&next), "{next}");
        thread::sleep(Duration::from_millis(u64::try_from(next).unwrap()));
    }
    eventually("a heartbeat is sent", || {
        client.check_liveness().unwrap();
        client.stats().unwrap().heartbeats > 0
    });
    let mut got = [0; PING.len()];
    peer.read_exact(&mut got).unwrap();
    assert_eq!(got, PING);
    undisturbed(|| {
        let client = A::connect(&p.server.endpoint(), &[Opt::IdleTimeout(1000)]).unwrap();
        client.set_nonblocking(true).unwrap();
        assert!(client.check_liveness().unwrap() <= 1000);
        thread::sleep(Duration::from_millis(1010));
        fails(client.check_liveness(), ErrorKind::IdleTimeout);
    });
    // An unread byte counts as received.
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    let client = A::connect(&server.endpoint(), &[Opt::IdleTimeout(20)]).unwrap();
    client.set_nonblocking(true).unwrap();
    let accepted = server.accept().unwrap();
    accepted.write_all(b"x").unwrap();
    eventually("the byte has arrived", || client.stats().unwrap().unread == 1);
    thread::sleep(Duration::from_millis(30));
    assert!(client.check_liveness().unwrap() <= 20);
}

fn check_liveness_of_closed_socket_fails<A: Api>() {
    let p = pair_with::<A>(Transport::Tcp, &[Opt::Heartbeat(PING, 1000), Opt::CloseTimeout(0)]);
    p.client.close().unwrap();
    fails(p.client.check_liveness(), ErrorKind::Closed);
    p.accepted.shutdown_write().unwrap();
    let (client, peer) = with_raw_peer::<A>(&[]);
    system::reset(peer);
    eventually("the reset has arrived", || client.state().unwrap() == TcpState::Closed as i32);
    fails(client.read(&mut [0; 8]), ErrorKind::Reset);
    fails(client.check_liveness(), ErrorKind::Reset);
}

/// K6: the close reasons that need no network namespace. tests/netns/liveness.rs has the others.
fn close_reason_names_each_cause<A: Api>() {
    for transport in TRANSPORTS {
        let p = pair::<A>(transport);
        assert_eq!((p.client.close_reason(), p.accepted.close_reason()), (None, None));
        p.client.close().unwrap();
        assert_eq!(p.client.close_reason(), Some(CloseReason::Local));
        assert_eq!(p.accepted.read(&mut [0; 8]).unwrap(), 0);
        assert_eq!(p.accepted.close_reason(), Some(CloseReason::PeerClosed));

        let p = pair::<A>(transport);
        p.client.shutdown_write().unwrap();
        assert_eq!(p.accepted.wait_hangup(INFINITE).unwrap(), CloseReason::PeerClosed);
        assert_eq!(p.accepted.close_reason(), Some(CloseReason::PeerClosed));

        let p = pair::<A>(transport);
        let token = A::token();
        p.client.set_cancel(Some(&token));
        token.fire();
        fails(p.client.read(&mut [0; 8]), ErrorKind::Cancelled);
        assert_eq!(p.client.close_reason(), None, "a cancel ends calls and keeps the connection");
        let _ = p.client.close();
        assert_eq!(p.client.close_reason(), Some(CloseReason::Cancelled));

        let p = pair::<A>(transport);
        p.client.release().unwrap();
        assert_eq!(p.client.close_reason(), Some(CloseReason::Local));
    }
    let p = pair::<A>(Transport::Tcp);
    p.client.abort();
    assert_eq!(p.client.close_reason(), Some(CloseReason::Local));
    fails(p.accepted.read(&mut [0; 8]), ErrorKind::Reset);
    assert_eq!(p.accepted.close_reason(), Some(CloseReason::PeerReset));
    // The write finds the reset.
    let (client, peer) = with_raw_peer::<A>(&[]);
    system::reset(peer);
    eventually("the reset has arrived", || client.write_all(b"x").is_err());
    assert_eq!(client.close_reason(), Some(CloseReason::PeerReset));
}

/// K6: a later event does not change the close reason, except a reset after the peer's FIN.
fn close_reason_after_later_events_is_the_first<A: Api>() {
    let p = pair::<A>(Transport::Tcp);
    p.client.close().unwrap();
    assert_eq!(p.accepted.read(&mut [0; 8]).unwrap(), 0);
    let _ = p.accepted.write_all(b"to nobody");
    eventually("the reset has arrived", || p.accepted.write_all(b"x").is_err());
    assert_eq!(p.accepted.close_reason(), Some(CloseReason::PeerReset));
    fails(p.accepted.close(), ErrorKind::Reset);
    assert_eq!(p.accepted.close_reason(), Some(CloseReason::PeerReset));
    let (client, peer) = with_raw_peer::<A>(&[]);
    system::reset(peer);
    fails(client.read(&mut [0; 8]), ErrorKind::Reset);
    client.close().unwrap();
    assert_eq!(client.close_reason(), Some(CloseReason::PeerReset));
}

/// N1: the statistics count the bytes that were sent and received.
fn stats_count_sent_and_received_bytes<A: Api>() {
    let p = pair::<A>(Transport::Tcp);
    p.client.write_all(&[1; 1000]).unwrap();
    p.accepted.read_exact(&mut [0; 700]).unwrap();
    p.accepted.write_all(b"pong").unwrap();
    p.client.read_exact(&mut [0; 4]).unwrap();
    eventually("all bytes are acknowledged", || p.accepted.stats().unwrap().unacknowledged == 0);
    let (c, a) = (p.client.stats().unwrap(), p.accepted.stats().unwrap());
    assert_eq!((c.state, c.close_reason), (TcpState::Established as i32, None));
    assert_eq!((c.bytes_sent, c.bytes_received), (1000, 4));
    assert_eq!((a.bytes_sent, a.bytes_received), (4, 1000));
    assert_eq!((a.unread, c.unread, c.unsent, c.retransmits), (300, 0, 0, 0));
    assert!(c.rtt_us > 0 && c.rtt_variation_us > 0 && c.min_rtt_us >= 0, "{c:?}");
    assert!(c.mss > 500 && c.congestion_window > 0 && c.peer_window > 1000, "{c:?}");
    assert!(c.segments_sent >= 3 && c.segments_received >= 2, "{c:?}");
    assert_eq!(c.congestion_control, system::congestion_control(p.client.fd().unwrap()));
    thread::sleep(Duration::from_millis(30));
    let later = p.client.stats().unwrap();
    assert!(later.last_received_us >= c.last_received_us + 20_000, "{later:?}");
    assert!(later.last_sent_us >= c.last_sent_us + 20_000, "{later:?}");
    // Buffered bytes count as unread.
    p.accepted.write_all(b"one\ntwo\n").unwrap();
    p.client.read_line(10).unwrap();
    assert_eq!(p.client.stats().unwrap().unread, 4);
}

/// N1: the statistics show that the peer does not read.
fn stats_of_stalled_peer_show_unsent_bytes<A: Api>() {
    let p = small_pair::<A>(Transport::Tcp);
    p.client.set_write_timeout(300).unwrap();
    let failure = fails(p.client.write_all(&vec![0; 1 << 20]), ErrorKind::TimedOut);
    let s = p.client.stats().unwrap();
    let a = p.accepted.stats().unwrap();
    assert!(s.unsent + s.unacknowledged > 0, "{s:?}");
    let written = i64::try_from(failure.transferred).unwrap();
    assert_eq!(s.unsent + s.unacknowledged + a.unread, written, "{s:?} {a:?}");
}

/// N1: the last statistics are complete if keep_stats is set or an error ended the connection.
/// Otherwise they hold only the values that cost no system call. The close reason is always set.
fn stats_after_close_are_kept<A: Api>() {
    let p = pair_with::<A>(Transport::Tcp, &[Opt::KeepStats(true), Opt::CloseTimeout(0)]);
    p.client.write_all(b"12345").unwrap();
    p.accepted.read_exact(&mut [0; 5]).unwrap();
    p.client.close().unwrap();
    p.accepted.abort();
    for (s, sent, received) in
        // The FIN also has a sequence number.
        [(p.client.stats().unwrap(), 5, 0), (p.accepted.stats().unwrap(), 0, 6)]
    {
        assert_eq!((s.bytes_sent, s.bytes_received), (sent, received));
        assert_eq!((s.state, s.close_reason), (TcpState::Closed as i32, Some(CloseReason::Local)));
    }
    let p = pair::<A>(Transport::Tcp);
    p.client.write_all(b"12345").unwrap();
    p.client.close().unwrap();
    let s = p.client.stats().unwrap();
    assert_eq!((s.bytes_sent, s.rtt_us, s.congestion_control.as_str()), (-1, -1, ""));
    assert_eq!((s.state, s.close_reason), (TcpState::Closed as i32, Some(CloseReason::Local)));
    let (client, mut peer) = with_raw_peer::<A>(&[]);
    client.write_all(b"12345").unwrap();
    peer.read_exact(&mut [0; 5]).unwrap();
    system::reset(peer);
    fails(client.read(&mut [0; 8]), ErrorKind::Reset);
    fails(client.close(), ErrorKind::Reset);
    let s = client.stats().unwrap();
    assert_eq!((s.bytes_sent, s.close_reason), (5, Some(CloseReason::PeerReset)));
}

/// N1: the TCP statistics of a Unix socket are absent, not zero.
fn stats_of_unix_socket_have_no_tcp_values<A: Api>() {
    let p = pair::<A>(Transport::Unix);
    p.client.write_all(b"123").unwrap();
    let s = p.accepted.stats().unwrap();
    assert_eq!((s.state, s.close_reason, s.unread), (0, None, 3));
    assert_eq!((s.rtt_us, s.mss, s.bytes_received, s.unsent), (-1, -1, -1, -1));
    p.accepted.close().unwrap();
    assert_eq!(p.accepted.stats().unwrap().close_reason, Some(CloseReason::Local));
}

/// N1: the statistics of a connection query each value once. They skip a value that only an
/// option can change, if this process did not set the option. Calls of getsockopt(2) and ioctl(2) are counted.
fn stats_make_only_the_needed_system_calls<A: Api>() {
    process::in_process(
        &test_name!(A, "stats_make_only_the_needed_system_calls"),
        timing::ms(20_000),
        || {
            let p = pair::<A>(Transport::Tcp);
            let stall = [Opt::DeadAfter(4321), Opt::FailOnStall(true)];
            let strict = A::connect(&p.server.endpoint(), &stall).unwrap();
            let count = |client: &A::Client| {
                let count = Arc::new(AtomicUsize::new(0));
                let counter = count.clone();
                let body = || {
                    limits::supervise(&[(libc::SYS_getsockopt, None), (libc::SYS_ioctl, None)], {
                        move |_| {
                            counter.fetch_add(1, Ordering::SeqCst);
                            None
                        }
                    });
                    client.stats().unwrap();
                };
                thread::scope(|scope| scope.spawn(body).join().unwrap());
                count.load(Ordering::SeqCst)
            };
            // TCP_INFO, SIOCOUTQ, TCP_CONGESTION, FIONREAD.
            assert_eq!(count(&p.client), 4);
            // Also the user timeout and Multipath TCP, which a connection inherits from its listener.
            assert_eq!(count(&p.accepted), 6);
            assert_eq!(count(&strict), 6);
            p.client.fd().unwrap();
            assert_eq!(count(&p.client), 6);
        },
    );
}

/// N1: the statistics report a user timeout that the program has set, by an option or on the
/// descriptor of a connection or of its listener.
fn stats_report_the_user_timeout_of_the_program<A: Api>() {
    let set = |fd, ms| system::set_option(fd, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, ms);
    let p = pair::<A>(Transport::Tcp);
    for client in [&p.client, &p.accepted] {
        assert_eq!(client.stats().unwrap().user_timeout_ms, INFINITE);
        set(client.fd().unwrap(), 1234);
        assert_eq!(client.stats().unwrap().user_timeout_ms, 1234);
    }
    set(p.server.fd().unwrap(), 2345);
    let _client = A::connect(&p.server.endpoint(), &[]).unwrap();
    assert_eq!(p.server.accept().unwrap().stats().unwrap().user_timeout_ms, 2345);
    let stall = [Opt::DeadAfter(4321), Opt::FailOnStall(true)];
    let client = A::connect(&p.server.endpoint(), &stall).unwrap();
    client.set_dead_after(5432).unwrap();
    assert_eq!(client.stats().unwrap().user_timeout_ms, 5432);
    let ms = 6543i32.to_ne_bytes();
    let own = [Opt::RawSockopt(libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, &ms)];
    let client = A::connect(&p.server.endpoint(), &own).unwrap();
    assert_eq!(client.stats().unwrap().user_timeout_ms, 6543);
}

/// S5: LISTEN, ESTABLISHED and the closing states have the names of RFC 9293. SYN-SENT and
/// SYN-RECEIVED belong to the handshake.
fn tcp_states_have_names_of_rfc_9293<A: Api>() {
    let p = pair::<A>(Transport::Tcp);
    let is = |c: &A::Client, state: TcpState| {
        eventually(&state.to_string(), || c.state().unwrap() == state as i32);
    };
    is(&p.client, TcpState::Established);
    is(&p.accepted, TcpState::Established);
    p.client.shutdown_write().unwrap();
    is(&p.client, TcpState::FinWait2);
    is(&p.accepted, TcpState::CloseWait);
    p.accepted.shutdown_write().unwrap();
    is(&p.accepted, TcpState::Closed);
    p.client.close().unwrap();
    assert_eq!(p.client.state().unwrap(), TcpState::Closed as i32);
}

/// K3, K4: keepalive options that contradict dead_after are rejected, and the socket is unchanged.
fn keepalive_that_contradicts_dead_after_is_rejected<A: Api>() {
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    for option in [Opt::DeadAfter(16_000), Opt::MiddleboxTimeout(16_000)] {
        let client = A::connect(&server.endpoint(), &[option]).unwrap();
        let before = effective::<A>(&client);
        fails(client.set_keepalive(45_000, 15_000, 5), ErrorKind::InvalidArgument);
        fails(client.disable_keepalive(), ErrorKind::InvalidArgument);
        assert_eq!(effective::<A>(&client), before);
        client.set_keepalive(2000, 2000, 2).unwrap();
        assert_eq!(effective::<A>(&client), (2000, 2000, 2));
    }
}

/// K6: check_liveness reports a reset although no call reads.
fn check_liveness_after_reset_reports_it<A: Api>() {
    for options in [&[][..], &[Opt::DeadAfter(8000)]] {
        let (client, peer) = with_raw_peer::<A>(options);
        client.set_nonblocking(true).unwrap();
        client.check_liveness().unwrap();
        system::reset(peer);
        eventually("the reset has arrived", || client.state().unwrap() == TcpState::Closed as i32);
        fails(client.check_liveness(), ErrorKind::Reset);
        assert_eq!(client.close_reason(), Some(CloseReason::PeerReset));
        fails(client.read(&mut [0; 8]), ErrorKind::Reset);
    }
}

/// K5: a peer whose program hangs does not close its side, so the close does not wait for it.
fn close_after_heartbeat_timeout_returns_at_once<A: Api>() {
    let options = [Opt::Heartbeat(PING, 30), Opt::HeartbeatTimeout(100), Opt::CloseTimeout(30_000)];
    let (client, _peer) = with_raw_peer::<A>(&options);
    fails(client.read(&mut [0; 8]), ErrorKind::HeartbeatTimeout);
    let (outcome, time) = timed(|| client.close());
    fails(outcome, ErrorKind::HeartbeatTimeout);
    client.close().unwrap();
    assert!(time < Duration::from_secs(10), "{time:?}");
    assert_eq!(client.close_reason(), Some(CloseReason::HeartbeatTimeout));
}

/// K3, K5: a wait with liveness options sleeps, on both transports.
fn read_with_liveness_options_uses_no_processor<A: Api>() {
    for transport in TRANSPORTS {
        for option in [
            Opt::DeadAfter(2000),
            Opt::MiddleboxTimeout(2000),
            Opt::IdleTimeout(60_000),
            Opt::Heartbeat(PING, 60_000),
        ] {
            if transport == Transport::Unix && matches!(option, Opt::MiddleboxTimeout(_)) {
                continue;
            }
            let (endpoint, _dir) = somewhere(transport);
            let server = A::listen(&endpoint, &[]).unwrap();
            let options = [option, Opt::ReadTimeout(700), Opt::CloseTimeout(0)];
            let client = A::connect(&server.endpoint(), &options).unwrap();
            promptly(Duration::from_millis(50), || {
                let before = system::thread_cpu_time();
                fails(client.read(&mut [0; 8]), ErrorKind::TimedOut);
                system::thread_cpu_time() - before
            });
            assert_ne!(client.check_liveness().unwrap(), 0, "the next call is due at once");
        }
    }
}

/// K5, E1: a write after shutdown_write fails at once, although a heartbeat was sent only in part.
fn write_after_partial_heartbeat_and_shutdown_fails<A: Api>() {
    let long = vec![b'h'; 8 << 20]; // more than fits
    let options = [Opt::Heartbeat(&long, 50), Opt::WriteTimeout(5000), Opt::CloseTimeout(0)];
    let (client, peer) = with_raw_peer::<A>(&options);
    system::shrink_buffers(client.fd().unwrap());
    system::shrink_buffers(peer.as_raw_fd());
    send_one_heartbeat::<A>(&client);
    client.shutdown_write().unwrap();
    thread::scope(|scope| {
        let _end = support::OnDrop(|| client.abort());
        let writer = scope.spawn(|| client.write_all(b"after"));
        eventually("it fails", || writer.is_finished());
        fails(writer.join().unwrap(), ErrorKind::WrongState);
    });
}

/// K5: while a message is sent in parts, no heartbeat is sent between the parts.
fn heartbeat_during_message_in_parts_waits_for_its_end<A: Api>() {
    no_heartbeat_within_a_message::<A>(false);
}

/// K5, K8: a heartbeat that is set after the start of a message also waits for its end.
fn set_heartbeat_within_a_message_waits_for_its_end<A: Api>() {
    no_heartbeat_within_a_message::<A>(true);
}

fn no_heartbeat_within_a_message<A: Api>(set_later: bool) {
    let options = [Opt::Heartbeat(PING, 20), Opt::CloseTimeout(0)];
    let (client, mut peer) = with_raw_peer::<A>(if set_later { &options[1..] } else { &options });
    client.set_nonblocking(true).unwrap();
    let message = vec![b'm'; 12 << 20];
    let done = fails(client.write_all(&message), ErrorKind::WouldBlock).transferred;
    assert!(done > 0);
    if set_later {
        client.set_heartbeat(PING, 20).unwrap();
    }
    thread::sleep(Duration::from_millis(40));
    let mut got = vec![0; done];
    peer.read_exact(&mut got).unwrap();
    client.check_liveness().unwrap();
    client.write_all(b"").unwrap(); // does not finish the message
    thread::sleep(Duration::from_millis(40));
    client.check_liveness().unwrap();
    client.write_all(b"the rest").unwrap();
    got.resize(8, 0);
    peer.read_exact(&mut got).unwrap();
    assert_eq!(got, b"the rest");
    // The message is finished, so heartbeats continue.
    thread::sleep(Duration::from_millis(40));
    client.check_liveness().unwrap();
    got.resize(PING.len(), 0);
    peer.read_exact(&mut got).unwrap();
    assert_eq!(got, PING);
}

/// K5, V3: a broadcast does not split a heartbeat of which the kernel accepted a part.
#[cfg(feature = "serve")]
fn broadcast_does_not_split_a_heartbeat<A: Api>() {
    let long = vec![b'h'; 8 << 20]; // more than fits
    let server = A::listen("127.0.0.1:0", &[Opt::Heartbeat(&long, 100)]).unwrap();
    let handler = |client: &A::Client| drop(client.wait_hangup(INFINITE));
    let service = server.serve(&[], Box::new(handler)).unwrap();
    let mut peer = std::net::TcpStream::connect(server.endpoint()).unwrap();
    system::shrink_buffers(peer.as_raw_fd());
    eventually("a heartbeat is sent in part", || system::readable_bytes(peer.as_raw_fd()) > 0);
    eventually("the connection is served", || service.connections() == 1);
    assert_eq!(service.broadcast(b"NEWS"), (0, 1), "the client is too slow");
    let mut got = Vec::new();
    let _ = peer.read_to_end(&mut got);
    assert!(got.iter().all(|b| *b == b'h'), "the broadcast split a heartbeat");
}

/// K5: a side that writes all the time also sends heartbeats when it receives nothing, and does not
/// disconnect a peer that answers them.
fn heartbeat_timeout_while_writing_sends_heartbeats_first<A: Api>() {
    undisturbed(write_between_heartbeats::<A>);
}

fn write_between_heartbeats<A: Api>() {
    let options = [Opt::Heartbeat(b"P", 250), Opt::HeartbeatTimeout(1500), Opt::CloseTimeout(0)];
    let (client, peer) = with_raw_peer::<A>(&options);
    client.set_nonblocking(true).unwrap();
    thread::scope(|scope| {
        scope.spawn(move || {
            let (mut reader, mut writer) = (&peer, &peer);
            let mut byte = [0];
            while reader.read(&mut byte).is_ok_and(|n| n == 1) {
                if byte == *b"P" && writer.write_all(b"A").is_err() {
                    break;
                }
            }
        });
        let _end = support::OnDrop(|| client.abort());
        let answers = std::cell::Cell::new(0);
        eventually("the peer has answered for longer than the timeout", || {
            client.write_all(b"x").unwrap();
            client.check_liveness().unwrap();
            answers.set(answers.get() + usize::from(client.read(&mut [0; 1]).is_ok()));
            thread::sleep(Duration::from_millis(10));
            answers.get() >= 8
        });
        assert!(client.stats().unwrap().heartbeats >= 8);
    });
}

/// K5, K6: an unanswered heartbeat ends the connection even if data is acknowledged.
fn heartbeat_timeout_without_answer_is_not_the_idle_timeout<A: Api>() {
    let options = [
        Opt::Heartbeat(PING, 100),
        Opt::HeartbeatTimeout(300),
        Opt::IdleTimeout(20_000),
        Opt::CloseTimeout(0),
    ];
    let (client, mut peer) = with_raw_peer::<A>(&options);
    client.set_read_timeout(20).unwrap();
    thread::scope(|scope| {
        scope.spawn(move || while peer.read(&mut [0; 512]).is_ok_and(|n| n > 0) {});
        let _end = support::OnDrop(|| client.abort());
        eventually("the connection is closed", || {
            let _ = client.write_all(b"x");
            client.read(&mut [0; 8]).is_err_and(|failure| !failure.is(ErrorKind::TimedOut))
        });
        assert_eq!(client.close_reason(), Some(CloseReason::HeartbeatTimeout));
        assert!(client.stats().unwrap().heartbeats >= 1);
    });
}

/// Returns the close reason of a connection with an idle timeout of a second on which this side sends
/// for three seconds to a peer that reads and sends nothing.
fn end_after_sending<A: Api>(transport: Transport, options: &[Opt<'_, A>]) -> Option<CloseReason> {
    let (endpoint, _dir) = somewhere(transport);
    let server = A::listen(&endpoint, &[Opt::CloseTimeout(0)]).unwrap();
    let client = A::connect(&server.endpoint(), options).unwrap();
    let peer = server.accept().unwrap();
    client.set_read_timeout(20).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| while peer.read(&mut [0; 512]).is_ok_and(|n| n > 0) {});
        let _end = support::OnDrop(|| client.abort());
        let start = std::time::Instant::now();
        while start.elapsed() < Duration::from_secs(3) && client.close_reason().is_none() {
            client.write_all(b"data").unwrap();
            let _ = client.read(&mut [0; 8]);
        }
        client.close_reason()
    })
}

/// K6: acknowledgments by the peer's kernel restart the idle timeout. On a Unix socket the bytes
/// that the kernel accepts do.
fn idle_timeout_while_sending_to_a_reader_does_not_end<A: Api>() {
    for transport in TRANSPORTS {
        undisturbed(|| {
            let options = [Opt::IdleTimeout(1000), Opt::CloseTimeout(0)];
            assert_eq!(end_after_sending::<A>(transport, &options), None);
        });
    }
}

/// K6: the kernel accepts one write right after it has received a request, and the peer reads
/// slowly.
fn idle_timeout_after_one_write_to_a_slow_reader_counts_acknowledgments<A: Api>() {
    undisturbed(one_write_to_a_slow_reader::<A>);
}

fn one_write_to_a_slow_reader<A: Api>() {
    let (client, mut peer) = with_raw_peer::<A>(&[Opt::IdleTimeout(1500), Opt::CloseTimeout(0)]);
    socket2::SockRef::from(&peer).set_recv_buffer_size(16 << 10).unwrap();
    peer.write_all(b"?").unwrap();
    client.read_exact(&mut [0]).unwrap();
    client.write_all(&[b'x'; 256 << 10]).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            let _end = support::OnDrop(|| client.abort());
            for piece in 0..32 {
                let read = peer.read_exact(&mut [0; 8 << 10]);
                read.unwrap_or_else(|e| panic!("piece {piece}: {e}"));
                thread::sleep(Duration::from_millis(100));
            }
            eventually("the connection is idle", || client.close_reason().is_some());
        });
        let (_, took) = timed(|| fails(client.read(&mut [0; 8]), ErrorKind::IdleTimeout));
        assert!(took > Duration::from_millis(3100), "{took:?}");
    });
}

/// K6, K7: the peer has shut down its sending side and reads nothing. The write fails, and
/// check_liveness fails. No answer to a heartbeat can arrive, so the heartbeat timeout does not
/// apply.
fn idle_timeout_after_the_end_of_stream_ends_a_write<A: Api>() {
    for writes in [true, false] {
        let options = [
            Opt::IdleTimeout(600),
            Opt::Heartbeat(PING, 50),
            Opt::HeartbeatTimeout(100),
            Opt::CloseTimeout(0),
        ];
        let (client, peer) = with_raw_peer::<A>(&options);
        peer.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(client.read(&mut [0; 8]).unwrap(), 0);
        let (_, took) = timed(|| {
            if writes {
                fails(client.write_all(&vec![b'x'; 32 << 20]), ErrorKind::IdleTimeout);
                return;
            }
            eventually("the connection is idle", || {
                thread::sleep(Duration::from_millis(10));
                client.check_liveness().is_err_and(|failure| failure.is(ErrorKind::IdleTimeout))
            });
        });
        assert!(took < Duration::from_secs(20), "{took:?}");
        assert_eq!(client.close_reason(), Some(CloseReason::IdleTimeout));
    }
}

/// K6: with idle_receive_only only received bytes restart the idle timeout.
fn idle_timeout_receive_only_while_sending_ends_connection<A: Api>() {
    for transport in TRANSPORTS {
        // The library grants the timeout again after the machine stood still.
        undisturbed(|| {
            let options =
                [Opt::IdleTimeout(1000), Opt::IdleReceiveOnly(true), Opt::CloseTimeout(0)];
            assert_eq!(end_after_sending::<A>(transport, &options), Some(CloseReason::IdleTimeout));
        });
    }
}

/// K6: heartbeats that the peer's kernel acknowledges and its program does not answer do not
/// restart the idle timeout.
fn idle_timeout_with_heartbeats_only_ends_connection<A: Api>() {
    for transport in TRANSPORTS {
        let (endpoint, _dir) = somewhere(transport);
        let server = A::listen(&endpoint, &[Opt::CloseTimeout(0)]).unwrap();
        let options = [Opt::Heartbeat(PING, 40), Opt::IdleTimeout(1000), Opt::CloseTimeout(0)];
        let client = A::connect(&server.endpoint(), &options).unwrap();
        let peer = server.accept().unwrap();
        thread::scope(|scope| {
            scope.spawn(|| while peer.read(&mut [0; 512]).is_ok_and(|n| n > 0) {});
            let _end = support::OnDrop(|| client.abort());
            client.set_read_timeout(60_000).unwrap();
            fails(client.read(&mut [0; 8]), ErrorKind::IdleTimeout);
            assert_eq!(client.close_reason(), Some(CloseReason::IdleTimeout));
        });
        assert!(client.stats().unwrap().heartbeats >= 2);
    }
}

/// K5: a heartbeat that was set is removed again from options, as from an open connection. A
/// heartbeat timeout needs a heartbeat in both.
fn heartbeat_in_options_is_removed<A: Api>() {
    let removed = [Opt::Heartbeat(PING, 100), Opt::Heartbeat(b"", INFINITE)];
    let (client, _peer) = with_raw_peer::<A>(&removed);
    assert_eq!(client.check_liveness().unwrap(), INFINITE);
    client.set_heartbeat(PING, 100).unwrap();
    client.set_heartbeat(b"", INFINITE).unwrap();
    assert_eq!(client.check_liveness().unwrap(), INFINITE);
    let p = pair::<A>(Transport::Tcp);
    let answered =
        [Opt::Heartbeat(PING, 100), Opt::HeartbeatTimeout(1000), Opt::Heartbeat(b"", INFINITE)];
    fails(A::connect(&p.server.endpoint(), &answered), ErrorKind::InvalidArgument);
}

/// K6: a byte that stays unread does not postpone the end of a program that waits exactly as long as
/// check_liveness returns. The program may read the byte within 50 ms.
fn idle_timeout_with_a_byte_unread_ends_connection<A: Api>() {
    const IDLE: i64 = 1500;
    timing::assert_within(Duration::from_millis(IDLE as u64 + 50), || {
        let options = [Opt::IdleTimeout(IDLE), Opt::CloseTimeout(0)];
        let (client, mut peer) = with_raw_peer::<A>(&options);
        client.set_nonblocking(true).unwrap();
        peer.write_all(b"x").unwrap();
        eventually("the byte has arrived", || client.stats().unwrap().unread == 1);
        let mut waited = 0;
        let failure = loop {
            match client.check_liveness() {
                Ok(next) => {
                    assert!((0..=IDLE).contains(&next), "{next}");
                    waited += u64::try_from(next).unwrap();
                    thread::sleep(Duration::from_millis(u64::try_from(next).unwrap()));
                }
                Err(failure) => break failure,
            }
        };
        assert!(failure.is(ErrorKind::IdleTimeout), "{failure:?}");
        assert_eq!(client.close_reason(), Some(CloseReason::IdleTimeout));
        Duration::from_millis(waited)
    });
}

/// T4: the time until the next call fits an int, which poll(2) takes.
fn check_liveness_with_a_long_timeout_returns_at_most_an_int<A: Api>() {
    for options in [[Opt::IdleTimeout(i64::MAX)], [Opt::IdleTimeout(i64::from(i32::MAX) + 1)]] {
        let (client, _peer) = with_raw_peer::<A>(&options);
        // The second timeout began with the connection.
        let most = i64::from(i32::MAX);
        let next = client.check_liveness().unwrap();
        assert!((most - 60_000..=most).contains(&next), "{next}");
    }
}

/// K5, K6: a program without calls for longer than its timeouts has sent no heartbeats and read
/// nothing. The peer gets a heartbeat and the full time.
fn liveness_after_an_absence_of_calls_keeps_connection<A: Api>() {
    undisturbed(be_absent::<A>);
}

fn be_absent<A: Api>() {
    let options = [
        Opt::Heartbeat(PING, 250),
        Opt::HeartbeatTimeout(1500),
        Opt::IdleTimeout(1500),
        Opt::CloseTimeout(0),
    ];
    let (client, mut peer) = with_raw_peer::<A>(&options);
    let answer = thread::spawn(move || {
        let mut ping = [0; PING.len()];
        while peer.read_exact(&mut ping).is_ok() {
            if peer.write_all(b"PONG").is_err() {
                break;
            }
        }
    });
    client.read_exact(&mut [0; 4]).unwrap();
    for _ in 0..2 {
        thread::sleep(Duration::from_millis(2500));
        client.read_exact(&mut [0; 4]).unwrap();
        client.read_exact(&mut [0; 4]).unwrap();
    }
    client.abort();
    answer.join().unwrap();
}

/// The heartbeat timeout and the idle timeout of a process that is stopped.
const JUDGED_AFTER: Duration = Duration::from_millis(1500);

/// A process that reads from connections in the given mode, until it is killed.
#[cfg(feature = "serve")]
fn stoppable<A: Api>(way: &str) {
    let limit = JUDGED_AFTER.as_millis() as i64;
    let options = [
        Opt::Heartbeat(b"?", 200),
        Opt::HeartbeatTimeout(limit),
        Opt::IdleTimeout(limit),
        Opt::CloseTimeout(0),
    ];
    let read = |client: &A::Client| {
        while client.read(&mut [0; 64]).is_ok_and(|n| n > 0) {}
        client.abort();
    };
    if way == "client" {
        let to = next_command().unwrap();
        let clients = [(); 3].map(|()| A::connect(&to, &options).unwrap());
        return thread::scope(|scope| {
            clients.iter().for_each(|client| drop(scope.spawn(|| read(client))));
        });
    }
    let server = A::listen("127.0.0.1:0", &options).unwrap();
    report(&server.endpoint());
    let _service = match way {
        "threads" => server.serve(&[], Box::new(read)).unwrap(),
        _ => server.serve_events(&[], On::default()).unwrap(),
    };
    while next_command().is_some() {}
}

/// K5, K6: a process that was stopped for longer than its timeouts ends no connection whose peer
/// answers. A peer that does not answer gets another heartbeat and the full time.
#[cfg(feature = "serve")]
fn liveness_after_sigstop_keeps_answering_peers<A: Api>() {
    if let Some(way) = process::role() {
        return stoppable::<A>(&way);
    }
    let test = test_name!(A, "liveness_after_sigstop_keeps_answering_peers");
    let answer = |mut peer: &TcpStream, heartbeats: usize| {
        for _ in 0..heartbeats {
            peer.read_exact(&mut [0])?;
            peer.write_all(b"!")?;
        }
        std::io::Result::Ok(())
    };
    let stop_and_resume = |way: &str| {
        let mut helper = Helper::start(&test, way);
        let peers = if way == "client" {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            helper.send_line(&listener.local_addr().unwrap().to_string());
            [(); 3].map(|()| listener.accept().unwrap().0)
        } else {
            let to = helper.next_line();
            [(); 3].map(|()| TcpStream::connect(&to).unwrap())
        };
        for peer in &peers {
            peer.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        }
        thread::scope(|scope| {
            for peer in &peers {
                scope.spawn(move || answer(peer, 2).unwrap());
            }
        });
        helper.stop();
        thread::sleep(2 * JUDGED_AFTER + Duration::from_millis(500));
        let resumed = Instant::now();
        helper.resume();
        thread::scope(|scope| {
            // Longer than the timeouts.
            for peer in &peers[..2] {
                scope.spawn(move || {
                    answer(peer, 10)
                        .unwrap_or_else(|e| panic!("{way}: the connection was closed: {e}"));
                });
            }
            scope.spawn(|| {
                let (mut heartbeats, mut peer) = (0, &peers[2]);
                while matches!(peer.read(&mut [0]), Ok(1)) {
                    heartbeats += 1;
                }
                let took = resumed.elapsed();
                assert!(heartbeats > 0 && took >= JUDGED_AFTER, "{way}: {heartbeats}, {took:?}");
            });
        });
    };
    thread::scope(|scope| {
        for way in ["threads", "events", "client"] {
            scope.spawn(move || undisturbed(|| stop_and_resume(way)));
        }
    });
}

/// A process that answers each received byte, until it is killed.
#[cfg(feature = "serve")]
fn answering() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    report(&listener.local_addr().unwrap().to_string());
    thread::scope(|scope| {
        for peer in listener.incoming() {
            let mut peer = peer.unwrap();
            scope.spawn(
                move || {
                    while peer.read_exact(&mut [0]).is_ok() && peer.write_all(b"!").is_ok() {}
                },
            );
        }
    });
}

/// K3, K5, K8: the kernel of a peer process that is stopped completes handshakes and acknowledges
/// data. dead_after keeps such a connection, and the heartbeat timeout ends it: a connection from
/// before the stop, a pending connect, and a connect of a service.
#[cfg(feature = "serve")]
fn liveness_of_a_stopped_peer_process_ends_by_heartbeat_only<A: Api>() {
    if process::role().is_some() {
        return answering();
    }
    let test = test_name!(A, "liveness_of_a_stopped_peer_process_ends_by_heartbeat_only");
    let helper = Helper::start(&test, "peer");
    let to = helper.next_line();
    let beats = [Opt::Heartbeat(b"?", 200), Opt::HeartbeatTimeout(3000), Opt::CloseTimeout(0)];
    let dead = [Opt::DeadAfter(2000), Opt::CloseTimeout(0)];
    let (closed, reasons) = channel();
    let (received, answers) = channel();
    let (closed, received) = (Mutex::new(closed), Mutex::new(received));
    let on = On {
        data: Some(Box::new(move |_, _| received.lock().unwrap().send(()).unwrap_or(()))),
        close: Some(Box::new(move |_, reason| closed.lock().unwrap().send(reason).unwrap_or(()))),
        ..On::default()
    };
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    let service = server.serve_events(&[], on).unwrap();
    let answers_to = |client: &A::Client| {
        client.set_read_timeout(30_000).unwrap();
        client.write_all(b"x").unwrap();
        client.read_exact(&mut [0]).unwrap();
    };
    let before = [&beats[..], &dead].map(|options| {
        let client = A::connect(&to, options).unwrap();
        answers_to(&client);
        client
    });
    helper.stop();
    let later = [&beats[..], &dead].map(|options| {
        service.connect(&to, options, 1).unwrap();
        A::start(&to, options).unwrap().wait().unwrap()
    });
    thread::scope(|scope| {
        for [judged, kept] in [&before, &later] {
            scope.spawn(move || {
                let outcome = loop {
                    // Answers from before the stop may be unread.
                    if let Err(failure) = judged.read(&mut [0; 8]) {
                        break failure;
                    }
                };
                assert!(outcome.is(ErrorKind::HeartbeatTimeout), "{outcome:?}");
                assert_eq!(judged.close_reason(), Some(CloseReason::HeartbeatTimeout));
            });
            scope.spawn(move || {
                // Longer than dead_after and a second.
                kept.set_read_timeout(4000).unwrap();
                fails(kept.read(&mut [0; 8]), ErrorKind::TimedOut);
                assert_eq!(kept.close_reason(), None);
            });
        }
    });
    let reason = reasons.recv_timeout(Duration::from_secs(30)).unwrap();
    assert_eq!(reason, CloseReason::HeartbeatTimeout);
    helper.resume();
    answers_to(&before[1]);
    answers_to(&later[1]);
    assert_eq!(service.broadcast(b"x"), (1, 0));
    answers.recv_timeout(Duration::from_secs(30)).unwrap();
    assert!(reasons.try_recv().is_err());
}

/// K3: set_dead_after changes the dead-peer detection and keepalive of an open connection, in both
/// directions.
fn set_dead_after_on_open_connection_applies<A: Api>() {
    let p = pair::<A>(Transport::Tcp);
    let before = effective::<A>(&p.client);
    for client in [&p.client, &p.accepted] {
        for ms in [16_000, 4000, 60_000] {
            client.set_dead_after(ms).unwrap();
            let (idle, interval, count) = effective::<A>(client);
            assert_eq!(idle + interval * i64::from(count), ms);
            let next = client.check_liveness().unwrap();
            assert!((1..=ms / 4).contains(&next), "{next}");
        }
        client.set_dead_after(INFINITE).unwrap();
        assert_eq!(effective::<A>(client), before);
        assert_eq!(client.check_liveness().unwrap(), INFINITE);
    }
    p.client.write_all(b"goes on").unwrap();
    p.accepted.read_exact(&mut [0; 7]).unwrap();
    // The peer of a Unix socket cannot vanish.
    pair::<A>(Transport::Unix).client.set_dead_after(4000).unwrap();
}

/// K3, E2: a contradictory value is rejected, and the settings remain.
fn set_dead_after_on_failure_changes_nothing<A: Api>() {
    let p = pair::<A>(Transport::Tcp);
    let refused = |ms, words: &str| {
        let before = p.client.keepalive().unwrap();
        let failure = fails(p.client.set_dead_after(ms), ErrorKind::InvalidArgument);
        assert!(failure.message.contains(words), "{failure:?} does not contain {words:?}");
        assert_eq!(p.client.keepalive().unwrap(), before);
        assert_eq!(p.client.check_liveness().unwrap(), INFINITE);
    };
    refused(1999, "dead_after 1,999 ms is not within");
    refused(0, "dead_after 0 ms is not within");
    p.client.set_keepalive(60_000, 20_000, 4).unwrap();
    refused(16_000, "detects a dead peer after 140,000 ms");
    p.client.disable_keepalive().unwrap();
    refused(16_000, "keepalive is off");
    p.client.close().unwrap();
    fails(p.client.set_dead_after(16_000), ErrorKind::Closed);
    fails(p.client.set_idle_timeout(16_000), ErrorKind::Closed);
}

/// K6, K8: the idle timeout of an open connection can be set, changed and disabled.
fn set_idle_timeout_on_open_connection_applies<A: Api>() {
    for transport in TRANSPORTS {
        let p = pair::<A>(transport);
        p.client.set_idle_timeout(60_000).unwrap();
        p.client.set_idle_timeout(100).unwrap();
        let (outcome, time) = timed(|| p.client.read(&mut [0; 8]));
        fails(outcome, ErrorKind::IdleTimeout);
        assert!(time >= Duration::from_millis(90), "{time:?}");
        p.accepted.set_idle_timeout(100).unwrap();
        fails(p.accepted.set_idle_timeout(0), ErrorKind::InvalidArgument);
        p.accepted.set_idle_timeout(INFINITE).unwrap();
        assert_eq!(p.accepted.check_liveness().unwrap(), INFINITE);
    }
}

/// K5, K8: the heartbeat of an open connection can be set, changed and disabled.
fn set_heartbeat_on_open_connection_applies<A: Api>() {
    for transport in TRANSPORTS {
        let p = pair::<A>(transport);
        // A heartbeat is sent only while a call waits.
        let one_wait = || {
            p.client.set_read_timeout(300).unwrap();
            fails(p.client.read(&mut [0; 8]), ErrorKind::TimedOut);
        };
        let got = || {
            let mut buf = [0; 1 << 10];
            p.accepted.set_read_timeout(100).unwrap();
            p.accepted.read(&mut buf).map(|n| buf[..n].to_vec())
        };
        one_wait();
        fails(got(), ErrorKind::TimedOut);
        for bytes in [b"AAA", b"BBB"] {
            p.client.set_heartbeat(bytes, 50).unwrap();
            // After a delay of this thread one wait may send none.
            let sent = p.client.stats().unwrap().heartbeats;
            eventually("two heartbeats are sent", || {
                one_wait();
                p.client.stats().unwrap().heartbeats >= sent + 2
            });
            let got = got().unwrap();
            assert!(got.len() >= 3 && got.iter().all(|byte| *byte == bytes[0]), "{got:?}");
        }
        p.client.set_heartbeat(b"", INFINITE).unwrap();
        one_wait();
        fails(got(), ErrorKind::TimedOut);
        p.client.set_heartbeat(b"C", 50).unwrap();
        p.client.set_heartbeat_timeout(150).unwrap();
        p.client.set_read_timeout(60_000).unwrap();
        fails(p.client.read(&mut [0; 8]), ErrorKind::HeartbeatTimeout);
        assert_eq!(p.client.close_reason(), Some(CloseReason::HeartbeatTimeout));
    }
}

/// K5, E2: an invalid value fails with an error, and the settings remain.
fn set_heartbeat_on_failure_changes_nothing<A: Api>() {
    let options =
        [Opt::Heartbeat(b"A", 50), Opt::HeartbeatTimeout(60_000), Opt::IdleTimeout(60_000)];
    let (client, mut peer) = with_raw_peer::<A>(&options);
    for (bytes, every_ms) in [(&b"B"[..], 0), (b"", 50), (b"B", 60_000), (b"B", INFINITE)] {
        fails(client.set_heartbeat(bytes, every_ms), ErrorKind::InvalidArgument);
    }
    fails(client.set_heartbeat_timeout(0), ErrorKind::InvalidArgument);
    let mut got = [0; 3];
    let (read, _) = while_waiting(
        || client.read_exact(&mut [0]),
        || {
            peer.read_exact(&mut got).unwrap();
            peer.write_all(b"x").unwrap();
        },
    );
    read.unwrap();
    assert_eq!(&got, b"AAA");
    // Disabled in the order that the settings require.
    client.set_heartbeat_timeout(INFINITE).unwrap();
    client.set_heartbeat(b"", INFINITE).unwrap();
    fails(client.set_heartbeat_timeout(100), ErrorKind::InvalidArgument);
    client.abort();
    fails(client.set_heartbeat(b"B", 50), ErrorKind::Closed);
    fails(client.set_heartbeat_timeout(INFINITE), ErrorKind::Closed);
}

/// K3, K8: turning an option off needs no descriptor.
fn dead_after_is_turned_off_without_a_free_descriptor<A: Api>() {
    process::in_process(
        &test_name!(A, "dead_after_is_turned_off_without_a_free_descriptor"),
        Duration::from_secs(20),
        || {
            let p = pair::<A>(Transport::Tcp);
            p.client.set_dead_after(8000).unwrap();
            limits::limit_descriptors(3);
            std::fs::File::open("/dev/null").unwrap_err();
            p.client.set_dead_after(INFINITE).unwrap();
            assert_eq!(p.client.keepalive().unwrap(), Some((45_000, 15_000, 5)));
        },
    );
}
