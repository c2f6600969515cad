//! I3: half-close, graceful close, abort. I4: wait_hangup.

use crate::support::libc;
use crate::support::os::AsRawFd;
use std::io::{ErrorKind as IoKind, Read, Write};
use std::net::Shutdown;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::support;
use crate::support::{
    Api, Client, INFINITE, Opt, Outcome, Server, TRANSPORTS, Token, Transport, fails, pair,
    pair_with, promptly, system, timed, with_raw_peer,
};
use crate::support::{limits, process};
use keepsock::{CloseReason, ErrorKind, TcpState};

both_apis![
    half_close_keeps_the_other_direction,
    close_with_unread_input_delivers_all_bytes,
    close_without_unsent_data_returns_at_once,
    close_of_peer_that_never_closes_times_out,
    set_close_timeout_on_open_connection_applies,
    close_with_timeout_zero_does_not_wait,
    close_during_peer_reset_reports_it,
    close_that_is_cancelled_closes,
    close_twice_succeeds_and_other_calls_report_closed,
    close_during_close_loses_no_bytes,
    abort_of_connection_sends_reset,
    abort_during_read_sends_reset,
    close_during_read_delivers_all_bytes,
    free_of_connection_closes_gracefully,
    free_does_not_wait_for_the_peer,
    free_of_a_thousand_clients_returns_at_once,
    free_closes_when_the_close_timeout_has_passed,
    free_with_unread_input_delivers_all_bytes,
    close_in_nonblocking_mode_delivers_all,
    close_reports_that_another_thread_aborts,
    close_reports_a_write_that_it_ends,
    close_reports_a_write_that_it_ends_in_the_middle,
    close_with_timeout_zero_reports_unacknowledged_bytes,
    close_reports_a_reset_that_an_earlier_call_met,
    free_beyond_an_eighth_of_the_descriptors_closes_the_oldest,
    free_leaves_descriptors_to_the_program,
    free_with_few_descriptors_closes,
    wait_hangup_distinguishes_fin_and_reset,
    wait_hangup_consumes_no_data,
    read_after_fin_returns_earlier_data,
    read_after_reset_returns_earlier_data,
    reset_after_wait_hangup_is_reported_again,
    reset_during_two_waits_is_reported_to_both,
    wait_hangup_ignores_local_half_close,
    close_after_write_to_closed_peer_reports_reset,
    reset_taken_by_the_program_is_a_reset,
    reset_met_by_a_write_has_one_reason,
    reset_after_fin_is_the_reason_for_each_call,
    reset_after_fin_and_nothing_written_is_the_reason,
    write_to_a_closed_unix_peer_is_a_reset,
];

/// I3: after a half-close the peer reads to the end of the stream, and can still send.
fn half_close_keeps_the_other_direction<A: Api>() {
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

/// Reads to the end of the stream, and sends a little after each read. Returns the number of bytes.
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

/// I3: a server that closes after a reply of 1 MB, while the client's input is unread and more of
/// it arrives, loses no byte of the reply.
fn close_with_unread_input_delivers_all_bytes<A: Api>() {
    const REPLY: usize = 1 << 20;
    for transport in TRANSPORTS {
        let p = pair_with::<A>(transport, &[Opt::CloseTimeout(20_000)]);
        // The kernel has room for the whole reply, so that close could lose all of it.
        system::force_send_buffer(p.accepted.fd().unwrap(), 4 << 20);
        let closing = AtomicBool::new(false);
        thread::scope(|scope| {
            let server = scope.spawn(|| {
                p.accepted.write_all(&vec![b'r'; REPLY]).unwrap();
                closing.store(true, Ordering::Release);
                p.accepted.close()
            });
            p.client.write_all(&[b'q'; 10_000]).unwrap();
            support::eventually("it closes", || closing.load(Ordering::Acquire));
            p.client.write_all(&[b'q'; 10_000]).unwrap();
            assert_eq!(read_while_sending::<A>(&p.client), REPLY);
            p.client.close().unwrap();
            server.join().unwrap().unwrap();
        });
    }
}

/// I3: a close returns at once if nothing was written, if the peer has closed its side, or in
/// non-blocking mode.
fn close_without_unsent_data_returns_at_once<A: Api>() {
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

/// I3: close never hangs, neither if the peer never closes its side nor if it never stops sending.
/// It reports that the delivery is unknown.
fn close_of_peer_that_never_closes_times_out<A: Api>() {
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

/// I3: the close timeout of an open connection can be set, also of an accepted one.
fn set_close_timeout_on_open_connection_applies<A: Api>() {
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

/// I3: with a close timeout of zero, close sends the FIN and does not wait for the peer.
fn close_with_timeout_zero_does_not_wait<A: Api>() {
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

/// I3: close reports a reset by the peer during the close.
fn close_during_peer_reset_reports_it<A: Api>() {
    let p = pair_with::<A>(Transport::Tcp, &[Opt::CloseTimeout(10_000)]);
    p.client.write_all(b"x").unwrap();
    let (outcome, _) = support::while_waiting(|| p.client.close(), || p.accepted.abort());
    fails(outcome, ErrorKind::Reset);
    fails(p.client.read(&mut [0; 8]), ErrorKind::Closed);
}

/// T2, I3: a token ends a close that waits for the peer. The connection is closed nevertheless.
fn close_that_is_cancelled_closes<A: Api>() {
    for transport in TRANSPORTS {
        let p = pair_with::<A>(transport, &[Opt::CloseTimeout(10_000)]);
        let token = A::token();
        p.client.write_all(b"x").unwrap();
        p.client.set_cancel(Some(&token));
        let (outcome, _) = support::while_waiting(|| p.client.close(), || token.fire());
        fails(outcome, ErrorKind::Cancelled);
        fails(p.client.read(&mut [0; 8]), ErrorKind::Closed);
        p.client.close().unwrap();
    }
}

/// I3: a second close succeeds. Every other call reports that the connection is closed.
fn close_twice_succeeds_and_other_calls_report_closed<A: Api>() {
    for transport in TRANSPORTS {
        let p = pair::<A>(transport);
        p.client.write_all(b"x").unwrap();
        p.client.close().unwrap();
        assert_eq!(p.accepted.read(&mut [0; 8]).unwrap(), 1);
        assert_eq!(p.accepted.read(&mut [0; 8]).unwrap(), 0);
        p.client.close().unwrap();
        p.client.abort();
        let c = &p.client;
        let calls: [Outcome<()>; 17] = [
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
        // The same after an abort.
        p.accepted.abort();
        p.accepted.abort();
        p.accepted.close().unwrap();
        fails(p.accepted.read(&mut [0; 8]), ErrorKind::Closed);
    }
}

/// I3, T3: a second close, while the first one waits for the peer, does not end the first one
/// early.
fn close_during_close_loses_no_bytes<A: Api>() {
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
        support::eventually("it closes", || closing.load(Ordering::Acquire));
        p.accepted.close().unwrap();
        assert_eq!(read_while_sending::<A>(&p.client), REPLY);
        p.client.close().unwrap();
        first.join().unwrap().unwrap();
    });
}

/// I3: abort sends RST at once, whatever call is in progress.
fn abort_of_connection_sends_reset<A: Api>() {
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

/// I3: a freed or dropped connection closes as close does.
fn free_of_connection_closes_gracefully<A: Api>() {
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

/// In its own process.
fn in_a_process<A: Api>(test: &str, body: impl FnOnce()) {
    process::in_process(&test_name!(A, test), Duration::from_secs(25), body);
}

/// I3: free sends the FIN and returns although the peer does not close its side. The background
/// closer discards the peer's data, and then closes.
fn free_does_not_wait_for_the_peer<A: Api>() {
    for nonblocking in [false, true] {
        promptly(Duration::from_millis(100), || {
            let (client, mut peer) = with_raw_peer::<A>(&[Opt::CloseTimeout(20_000)]);
            client.write_all(b"reply").unwrap();
            client.set_nonblocking(nonblocking).unwrap();
            let ((), took) = timed(|| drop(client));
            let mut all = Vec::new();
            peer.read_to_end(&mut all).unwrap();
            assert_eq!(all, b"reply");
            // The data is still accepted: no RST is sent.
            for _ in 0..100 {
                peer.write_all(&[b'x'; 10_000]).unwrap();
            }
            assert!(!system::has_error(peer.as_raw_fd()));
            drop(peer);
            took
        });
    }
}

/// I3: free of any number of connections returns at once.
fn free_of_a_thousand_clients_returns_at_once<A: Api>() {
    in_a_process::<A>("free_of_a_thousand_clients_returns_at_once", || {
        limits::need_descriptors(5000);
        promptly(Duration::from_secs(2), free_a_thousand::<A>);
    });
}

fn free_a_thousand<A: Api>() -> Duration {
    const CLIENTS: usize = 1000;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = listener.local_addr().unwrap().to_string();
    let (mut clients, mut peers) = (Vec::new(), Vec::new());
    for _ in 0..CLIENTS {
        let client = A::connect(&endpoint, &[Opt::CloseTimeout(20_000)]).unwrap();
        client.write_all(b"x").unwrap();
        clients.push(client);
        peers.push(listener.accept().unwrap().0);
    }
    let ((), took) = timed(|| drop(clients));
    for peer in &mut peers {
        let mut all = Vec::new();
        peer.read_to_end(&mut all).unwrap();
        assert_eq!(all, b"x");
    }
    took
}

/// I3: a peer that never closes its side, or never stops sending, keeps a freed connection open
/// until the close timeout only.
fn free_closes_when_the_close_timeout_has_passed<A: Api>() {
    let (client, mut peer) = with_raw_peer::<A>(&[Opt::CloseTimeout(100)]);
    client.write_all(b"x").unwrap();
    drop(client);
    let (sent, sender) = std::sync::mpsc::channel();
    thread::spawn(move || {
        while peer.write_all(&[0; 4096]).is_ok() {}
        let _ = sent.send(());
    });
    sender.recv_timeout(Duration::from_secs(60)).expect("the connection is still open");
}

/// I3: a reply of 1 MB arrives whole although its client continues to send.
fn free_with_unread_input_delivers_all_bytes<A: Api>() {
    const REPLY: usize = 1 << 20;
    let p = pair_with::<A>(Transport::Tcp, &[Opt::CloseTimeout(20_000)]);
    system::force_send_buffer(p.accepted.fd().unwrap(), 4 << 20);
    p.client.write_all(&[b'q'; 10_000]).unwrap();
    p.accepted.write_all(&vec![b'r'; REPLY]).unwrap();
    drop(p.accepted);
    p.client.write_all(&[b'q'; 10_000]).unwrap();
    assert_eq!(read_while_sending::<A>(&p.client), REPLY);
    p.client.close().unwrap();
}

/// A client whose kernel holds 800,000 bytes for a peer that has not read yet.
fn unread_by_the_peer<A: Api>(options: &[Opt<'_, A>]) -> (A::Client, std::net::TcpStream) {
    let (client, peer) = with_raw_peer::<A>(options);
    system::force_send_buffer(client.fd().unwrap(), 4 << 20);
    system::shrink_buffers(peer.as_raw_fd());
    client.write_all(&[b'r'; 800_000]).unwrap();
    (client, peer)
}

/// I3, T4: close in non-blocking mode returns at once. A peer that continues to send receives all
/// bytes.
fn close_in_nonblocking_mode_delivers_all<A: Api>() {
    promptly(Duration::from_millis(200), || {
        let (client, mut peer) = unread_by_the_peer::<A>(&[Opt::CloseTimeout(20_000)]);
        client.set_nonblocking(true).unwrap();
        let (closed, took) = timed(|| client.close());
        closed.unwrap();
        fails(client.read(&mut [0; 8]), ErrorKind::Closed);
        assert_eq!(client.close_reason(), Some(CloseReason::Local));
        client.close().unwrap();
        for _ in 0..3 {
            peer.write_all(b"hello").unwrap();
            thread::sleep(Duration::from_millis(2));
        }
        let mut all = Vec::new();
        peer.read_to_end(&mut all).unwrap();
        assert_eq!(all.len(), 800_000);
        took
    });
}

/// I3, T3: an abort ends a waiting close, which does not report success.
fn close_reports_that_another_thread_aborts<A: Api>() {
    let (client, mut peer) = unread_by_the_peer::<A>(&[Opt::CloseTimeout(20_000)]);
    let (outcome, _) = support::while_waiting(|| client.close(), || client.abort());
    fails(outcome, ErrorKind::Closed);
    let end = peer.read_to_end(&mut Vec::new());
    assert_eq!(end.unwrap_err().kind(), IoKind::ConnectionReset);
    client.close().unwrap();
}

/// I3, T3: close reports that it ended a write in progress, even if the write returns first.
fn close_reports_a_write_that_it_ends<A: Api>() {
    let bytes = vec![0; 32 << 20];
    for attempt in 0..20 {
        let timeouts = [Opt::CloseTimeout(0), Opt::WriteTimeout(5000), Opt::ReadTimeout(5000)];
        let (client, _peer) = with_raw_peer::<A>(&timeouts);
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| fails(client.read(&mut [0; 8]), ErrorKind::Closed));
            }
            let write = || match attempt % 2 {
                0 => client.write_all(&bytes),
                _ => client.write_slices(&[&bytes, &bytes]),
            };
            let (written, _) = support::while_waiting(write, || {
                thread::sleep(Duration::from_millis(20));
                fails(client.close(), ErrorKind::TimedOut);
            });
            assert!(fails(written, ErrorKind::Closed).transferred > 0);
        });
    }
}

/// I3, T3: close reports the same while the peer reads all bytes.
fn close_reports_a_write_that_it_ends_in_the_middle<A: Api>() {
    let bytes = vec![0; 256 << 20];
    for attempt in 0..10 {
        let timeouts = [Opt::CloseTimeout(20_000), Opt::WriteTimeout(20_000)];
        let (client, mut peer) = with_raw_peer::<A>(&timeouts);
        thread::scope(|scope| {
            let writer = scope.spawn(|| match attempt % 2 {
                0 => client.write_all(&bytes),
                _ => client.write_slices(&[&bytes]),
            });
            let mut buf = vec![0; 1 << 20];
            peer.read_exact(&mut buf).unwrap();
            let reader = scope.spawn(move || while peer.read(&mut buf).is_ok_and(|n| n > 0) {});
            let closed = client.close();
            reader.join().unwrap();
            assert!(fails(writer.join().unwrap(), ErrorKind::Closed).transferred > 0);
            fails(closed, ErrorKind::TimedOut);
        });
    }
}

/// I3: with a close timeout of zero, close reports whether the peer's kernel has acknowledged all
/// bytes.
fn close_with_timeout_zero_reports_unacknowledged_bytes<A: Api>() {
    promptly(Duration::from_millis(50), || {
        let (client, peer) = unread_by_the_peer::<A>(&[Opt::CloseTimeout(0)]);
        let (outcome, took) = timed(|| client.close());
        fails(outcome, ErrorKind::TimedOut);
        client.close().unwrap();
        drop(peer);
        took
    });
}

/// I3, K7: the first close returns the reset that another call found, because bytes were lost.
fn close_reports_a_reset_that_an_earlier_call_met<A: Api>() {
    for nonblocking in [false, true] {
        for write in [false, true] {
            let (client, peer) = with_raw_peer::<A>(&[]);
            client.write_all(b"lost").unwrap();
            support::system::reset(peer);
            assert_eq!(client.wait_hangup(INFINITE).unwrap(), CloseReason::PeerReset);
            client.set_nonblocking(nonblocking).unwrap();
            let met =
                if write { client.write_all(b"x") } else { client.read(&mut [0; 8]).map(drop) };
            fails(met, ErrorKind::Reset);
            fails(client.close(), ErrorKind::Reset);
            client.close().unwrap();
            assert_eq!(client.close_reason(), Some(CloseReason::PeerReset));
        }
    }
}

/// I3: closing connections do not use up the descriptors.
fn free_beyond_an_eighth_of_the_descriptors_closes_the_oldest<A: Api>() {
    in_a_process::<A>("free_beyond_an_eighth_of_the_descriptors_closes_the_oldest", || {
        limits::limit_descriptors(64);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = listener.local_addr().unwrap().to_string();
        for _ in 0..100 {
            let client = A::connect(&endpoint, &[Opt::CloseTimeout(20_000)]).unwrap();
            client.write_all(b"x").unwrap();
            drop(client);
        }
        // The FIN and the bytes have nevertheless arrived in the listener's queue.
        let (mut peer, _) = listener.accept().unwrap();
        let mut all = Vec::new();
        peer.read_to_end(&mut all).unwrap();
        assert_eq!(all, b"x");
    });
}

/// E4: background closes leave descriptors to a program that uses more than half of its limit.
fn free_leaves_descriptors_to_the_program<A: Api>() {
    in_a_process::<A>("free_leaves_descriptors_to_the_program", || {
        limits::limit_descriptors(64);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = listener.local_addr().unwrap().to_string();
        let connect = || A::connect(&endpoint, &[Opt::CloseTimeout(20_000)]).unwrap();
        let _live: Vec<_> = (0..36).map(|_| connect()).collect();
        for _ in 0..60 {
            let client = connect();
            client.write_all(b"x").unwrap();
            drop(client);
            std::fs::File::open("/dev/null").unwrap();
        }
    });
}

/// E4: if the limit leaves no descriptor for background closes, free closes at once.
fn free_with_few_descriptors_closes<A: Api>() {
    in_a_process::<A>("free_with_few_descriptors_closes", || {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = listener.local_addr().unwrap().to_string();
        limits::limit_descriptors(listener.as_raw_fd() as u64 + 2);
        for _ in 0..30 {
            let client = A::connect(&endpoint, &[Opt::CloseTimeout(20_000)]).unwrap();
            client.write_all(b"x").unwrap();
            drop(client);
        }
    });
}

/// I4: FIN and RST are distinguished without consuming data.
fn wait_hangup_distinguishes_fin_and_reset<A: Api>() {
    type Ends<A> = fn(&<A as Api>::Client);
    let fin: Ends<A> = |c| c.shutdown_write().unwrap();
    let close: Ends<A> = |c| c.close().unwrap();
    for transport in TRANSPORTS {
        for end in [fin, close] {
            let p = pair::<A>(transport);
            let (how, _) =
                support::while_waiting(|| p.accepted.wait_hangup(INFINITE), || end(&p.client));
            assert_eq!(how.unwrap(), CloseReason::PeerClosed);
            assert_eq!(p.accepted.wait_hangup(INFINITE).unwrap(), CloseReason::PeerClosed);
        }
    }
    let p = pair::<A>(Transport::Tcp);
    let (how, _) = support::while_waiting(|| p.accepted.wait_hangup(INFINITE), || p.client.abort());
    assert_eq!(how.unwrap(), CloseReason::PeerReset);
    assert_eq!(p.accepted.wait_hangup(INFINITE).unwrap(), CloseReason::PeerReset);
    // On a Unix socket unread input causes the reset.
    let p = pair::<A>(Transport::Unix);
    p.accepted.write_all(b"unread").unwrap();
    p.client.abort();
    assert_eq!(p.accepted.wait_hangup(INFINITE).unwrap(), CloseReason::PeerReset);
}

/// I4: a timeout means that the connection is open. Zero only polls. Data is not a hang-up.
fn wait_hangup_consumes_no_data<A: Api>() {
    for transport in TRANSPORTS {
        let p = pair::<A>(transport);
        fails(p.accepted.wait_hangup(0), ErrorKind::TimedOut);
        p.client.write_all(b"data").unwrap();
        let (outcome, took) = timed(|| p.accepted.wait_hangup(60));
        let failure = fails(outcome, ErrorKind::TimedOut);
        assert!(took >= Duration::from_millis(60), "{took:?}");
        assert_eq!(&*failure.operation, "wait for hang-up");
        // The read timeout does not apply.
        p.accepted.set_read_timeout(60_000).unwrap();
        fails(p.accepted.wait_hangup(10), ErrorKind::TimedOut);
        p.client.shutdown_write().unwrap();
        assert_eq!(p.accepted.wait_hangup(INFINITE).unwrap(), CloseReason::PeerClosed);
    }
}

/// I4: data before the FIN stays readable, followed by the end of the stream.
fn read_after_fin_returns_earlier_data<A: Api>() {
    for transport in TRANSPORTS {
        let p = pair::<A>(transport);
        p.client.write_all(b"line\nrest").unwrap();
        assert_eq!(p.accepted.read_line(64).unwrap(), "line");
        p.client.shutdown_write().unwrap();
        assert_eq!(p.accepted.wait_hangup(INFINITE).unwrap(), CloseReason::PeerClosed);
        assert_eq!(p.accepted.read_until(b';', 64).unwrap(), b"rest");
        assert_eq!(p.accepted.read(&mut [0; 8]).unwrap(), 0);
    }
}

/// I4: data before the RST stays readable, followed by the error.
fn read_after_reset_returns_earlier_data<A: Api>() {
    let p = pair::<A>(Transport::Tcp);
    p.client.write_all(b"last words").unwrap();
    support::eventually("the reset has arrived", || {
        system::readable_bytes(p.accepted.fd().unwrap()) == 10
    });
    p.client.abort();
    assert_eq!(p.accepted.wait_hangup(INFINITE).unwrap(), CloseReason::PeerReset);
    let mut buf = [0; 64];
    assert_eq!(p.accepted.read(&mut buf).unwrap(), 10);
    assert_eq!(&buf[..10], b"last words");
    fails(p.accepted.read(&mut buf), ErrorKind::Reset);
}

/// I4: the kernel reports an error once. Later calls report it again, and do not treat the
/// connection as gracefully closed.
fn reset_after_wait_hangup_is_reported_again<A: Api>() {
    let p = pair::<A>(Transport::Tcp);
    p.client.abort();
    assert_eq!(p.accepted.wait_hangup(INFINITE).unwrap(), CloseReason::PeerReset);
    for _ in 0..2 {
        fails(p.accepted.read(&mut [0; 8]), ErrorKind::Reset);
        fails(p.accepted.read_exact(&mut [0; 8]), ErrorKind::Reset);
        fails(p.accepted.read_line(64), ErrorKind::Reset);
        fails(p.accepted.write_all(b"x"), ErrorKind::Reset);
        assert_eq!(p.accepted.wait_hangup(0).unwrap(), CloseReason::PeerReset);
    }
    // The other order: first the read, then the wait.
    let p = pair::<A>(Transport::Tcp);
    p.client.abort();
    fails(p.accepted.read(&mut [0; 8]), ErrorKind::Reset);
    fails(p.accepted.read(&mut [0; 8]), ErrorKind::Reset);
    assert_eq!(p.accepted.wait_hangup(0).unwrap(), CloseReason::PeerReset);
}

/// I4, T1: a reset is a reset for two waiting threads, although the kernel reports it to only one
/// of them. No thread sees a graceful end.
fn reset_during_two_waits_is_reported_to_both<A: Api>() {
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
            assert_eq!(waiter.join().unwrap().unwrap(), CloseReason::PeerReset);
        });
    }
}

/// I4: an event loop of the program reads SO_ERROR when poll reports an error. Later calls still
/// report the reset, and a FIN before a reset is the end of the stream.
fn reset_taken_by_the_program_is_a_reset<A: Api>() {
    for half_closed in [false, true] {
        let p = pair::<A>(Transport::Tcp);
        if half_closed {
            p.client.shutdown_write().unwrap();
        }
        p.accepted.write_all(b"before").unwrap();
        p.accepted.abort();
        let fd = p.client.fd().unwrap();
        assert_eq!(system::take_error(fd), libc::ECONNRESET);
        assert_eq!(p.client.read(&mut [0; 8]).unwrap(), 6);
        fails(p.client.read(&mut [0; 8]), ErrorKind::Reset);
        assert_eq!(p.client.wait_hangup(0).unwrap(), CloseReason::PeerReset);
        assert_eq!(p.client.close_reason(), Some(CloseReason::PeerReset));
    }
    let p = pair_with::<A>(Transport::Tcp, &[Opt::CloseTimeout(0)]);
    p.accepted.write_all(b"before").unwrap();
    p.accepted.shutdown_write().unwrap();
    assert_eq!(p.client.wait_hangup(INFINITE).unwrap(), CloseReason::PeerClosed);
    drop(p.accepted);
    p.client.write_all(b"late").unwrap();
    assert_eq!(system::take_error(p.client.fd().unwrap()), libc::EPIPE);
    assert_eq!(p.client.read(&mut [0; 8]).unwrap(), 6);
    assert_eq!(p.client.read(&mut [0; 8]).unwrap(), 0);
    assert_eq!(p.client.close_reason(), Some(CloseReason::PeerClosed));
}

/// K7: a write finds the reset of a Unix socket first.
fn reset_met_by_a_write_has_one_reason<A: Api>() {
    let p = pair::<A>(Transport::Unix);
    p.accepted.write_all(b"kept").unwrap();
    p.client.write_all(b"unread").unwrap();
    p.accepted.abort();
    fails(p.client.write_all(b"x"), ErrorKind::Reset);
    assert_eq!(p.client.close_reason(), Some(CloseReason::PeerReset));
    assert_eq!(p.client.wait_hangup(0).unwrap(), CloseReason::PeerReset);
    assert_eq!(p.client.read(&mut [0; 8]).unwrap(), 4);
    fails(p.client.read(&mut [0; 8]), ErrorKind::Reset);
}

/// I4: a local half-close is not the peer's hang-up.
fn wait_hangup_ignores_local_half_close<A: Api>() {
    for transport in TRANSPORTS {
        let p = pair::<A>(transport);
        p.accepted.shutdown_write().unwrap();
        fails(p.accepted.wait_hangup(20), ErrorKind::TimedOut);
        p.server.close();
        fails(p.accepted.wait_hangup(0), ErrorKind::TimedOut);
        p.client.close().unwrap();
        assert_eq!(p.accepted.wait_hangup(INFINITE).unwrap(), CloseReason::PeerClosed);
    }
}

/// I3, T3: a close while another thread reads loses no written byte.
fn close_during_read_delivers_all_bytes<A: Api>() {
    const REPLY: usize = 1 << 20;
    for transport in TRANSPORTS {
        let p = pair_with::<A>(transport, &[Opt::CloseTimeout(20_000)]);
        system::force_send_buffer(p.accepted.fd().unwrap(), 4 << 20);
        thread::scope(|scope| {
            let server = scope.spawn(|| {
                p.accepted.write_all(&vec![b'r'; REPLY]).unwrap();
                let (outcome, _) = support::while_waiting(
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

/// I3: an abort while other threads are in calls is a reset and not a graceful close, because the
/// peer must not treat its data as complete.
fn abort_during_read_sends_reset<A: Api>() {
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
                support::while_waiting(|| client.read(&mut [0; 8]), || client.abort());
            fails(outcome, ErrorKind::Closed);
            let end = end.join().unwrap();
            assert_eq!(end.unwrap_err().kind(), IoKind::ConnectionReset);
        }
    }
}

/// I3, K6: data that is written after the peer has closed is rejected, and close reports that. A
/// peer that has only shut down its sending side receives the data.
fn close_after_write_to_closed_peer_reports_reset<A: Api>() {
    let (client, peer) = with_raw_peer::<A>(&[]);
    drop(peer);
    assert_eq!(client.read(&mut [0; 8]).unwrap(), 0);
    client.write_all(b"to nobody").unwrap();
    fails(client.close(), ErrorKind::Reset);
    assert_eq!(client.close_reason(), Some(CloseReason::PeerReset));

    let (client, mut peer) = with_raw_peer::<A>(&[]);
    peer.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.read(&mut [0; 8]).unwrap(), 0);
    client.write_all(b"to somebody").unwrap();
    client.close().unwrap();
    let mut all = Vec::new();
    peer.read_to_end(&mut all).unwrap();
    assert_eq!(all, b"to somebody");

    // The peer reset the connection during the close.
    let (client, mut peer) = with_raw_peer::<A>(&[Opt::CloseTimeout(5000)]);
    client.write_all(b"bytes").unwrap();
    std::thread::scope(|scope| {
        let closing = scope.spawn(|| client.close());
        peer.read_to_end(&mut Vec::new()).unwrap(); // up to the FIN
        support::system::reset(peer);
        fails(closing.join().unwrap(), ErrorKind::Reset);
    });
    assert_eq!(client.close_reason(), Some(CloseReason::PeerReset));
}

/// A connection whose peer sent a reply and FIN, and then RST. With `late` the RST answers bytes of
/// this side that the peer did not take.
fn reset_after_fin<A: Api>(late: bool, nonblocking: bool) -> A::Client {
    let (client, mut peer) = with_raw_peer::<A>(&[Opt::CloseTimeout(0)]);
    peer.write_all(b"reply").unwrap();
    peer.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.wait_hangup(INFINITE).unwrap(), CloseReason::PeerClosed);
    if late {
        drop(peer);
        client.write_all(b"late").unwrap();
    } else {
        system::reset(peer);
    }
    support::eventually("the reset has arrived", || {
        client.state().unwrap() == TcpState::Closed as i32
    });
    client.set_nonblocking(nonblocking).unwrap();
    client
}

fn assert_reset_after_fin<A: Api>(scene: &str, client: &A::Client, mut unread: usize) {
    for _ in 0..2 {
        assert_eq!(client.close_reason(), Some(CloseReason::PeerReset), "{scene}");
        let stats = client.stats().unwrap();
        assert_eq!(stats.close_reason, Some(CloseReason::PeerReset), "{scene}");
        assert_eq!(client.wait_hangup(0).unwrap(), CloseReason::PeerReset, "{scene}");
        fails(client.check_liveness(), ErrorKind::Reset);
        for _ in 0..2 {
            let read = client.read(&mut [0; 8]).unwrap();
            assert_eq!(read, unread, "{scene}: the FIN came before the RST");
            unread = 0;
        }
        fails(client.write_all(b"x"), ErrorKind::Reset);
    }
    fails(client.shutdown_write(), ErrorKind::Reset);
    let _ = client.close();
    assert_eq!(client.close_reason(), Some(CloseReason::PeerReset), "{scene}");
}

/// I4, K7: the first call that observes a reset after the peer's FIN makes it the reason, whichever
/// call it is. Reads return what the peer sent before: the bytes and the end of the stream.
fn reset_after_fin_is_the_reason_for_each_call<A: Api>() {
    type Observe<A> = fn(&<A as Api>::Client) -> usize;
    let calls: [(&str, Observe<A>); 6] = [
        ("wait_hangup", |c| {
            assert_eq!(c.wait_hangup(0).unwrap(), CloseReason::PeerReset);
            5
        }),
        ("check_liveness", |c| {
            fails(c.check_liveness(), ErrorKind::Reset);
            5
        }),
        ("write", |c| {
            fails(c.write_all(b"x"), ErrorKind::Reset);
            5
        }),
        ("shutdown_write", |c| {
            fails(c.check_liveness(), ErrorKind::Reset);
            fails(c.shutdown_write(), ErrorKind::Reset);
            5
        }),
        ("close_reason", |_| 5),
        ("read", |c| {
            assert_eq!(c.read(&mut [0; 8]).unwrap(), 5);
            assert_eq!(c.read(&mut [0; 8]).unwrap(), 0);
            0
        }),
    ];
    for (name, observe) in calls {
        for late in [false, true] {
            for nonblocking in [false, true] {
                let scene = format!("{name}, late: {late}, non-blocking: {nonblocking}");
                let client = reset_after_fin::<A>(late, nonblocking);
                let unread = observe(&client);
                assert_reset_after_fin::<A>(&scene, &client, unread);
            }
        }
    }
}

/// I4, K7: a peer that closes its side and is then reset has reset the connection, although this
/// side wrote nothing. The close of a connection that lost nothing succeeds.
fn reset_after_fin_and_nothing_written_is_the_reason<A: Api>() {
    let client = reset_after_fin::<A>(false, false);
    assert_eq!(client.close_reason(), Some(CloseReason::PeerReset));
    client.close().unwrap();
    assert_eq!(client.close_reason(), Some(CloseReason::PeerReset));
}

/// I4, K7: a write that fails because the Unix peer has closed makes the reset the reason. Reads
/// return what the peer sent before.
fn write_to_a_closed_unix_peer_is_a_reset<A: Api>() {
    let p = pair_with::<A>(Transport::Unix, &[Opt::CloseTimeout(0)]);
    p.accepted.write_all(b"reply").unwrap();
    p.accepted.close().unwrap();
    assert_eq!(p.client.wait_hangup(0).unwrap(), CloseReason::PeerClosed);
    p.client.check_liveness().unwrap();
    fails(p.client.write_all(b"late"), ErrorKind::Reset);
    assert_reset_after_fin::<A>("Unix", &p.client, 5);
}
