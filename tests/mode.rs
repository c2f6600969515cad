//! The mode of a connected descriptor: connecting leaves it non-blocking until a call waits
//! in the kernel, or somebody else gets it. Nobody is to notice.
#![cfg(target_os = "linux")]
// Generic functions are tests that Clippy does not know for such.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::thread;
use std::time::Duration;

use common::{
    Api, Client, INFINITE, MORE_THAN_FITS, Opt, Token, fails, promptly, system, timed,
    waiting_calls, while_waiting, with_raw_peer,
};
use keepsock::{End, ErrorKind};

both_apis![
    the_borrowed_descriptor_has_the_mode_that_was_asked_for,
    the_released_descriptor_has_the_mode_that_was_asked_for,
    the_first_call_waits,
    the_first_call_ends_in_time,
    the_first_call_is_cancelled,
    the_first_call_does_not_wait_in_nonblocking_mode,
    a_first_write_that_does_not_fit_waits,
    a_token_that_is_taken_off_leaves_calls_that_wait,
    calls_that_wait_already_go_on,
    the_mode_agrees_with_what_was_set_last,
];

/// T4: a descriptor for others is blocking, unless non-blocking mode was asked for.
fn the_borrowed_descriptor_has_the_mode_that_was_asked_for<A: Api>() {
    let (client, peer) = with_raw_peer::<A>(&[Opt::CloseTimeout(0)]);
    let inside = system::socket_at(peer.peer_addr().unwrap());
    // The control: without it nothing here would be tested.
    assert!(system::is_nonblocking(inside));
    assert_eq!(client.fd().unwrap(), inside);
    assert!(!system::is_nonblocking(inside));
    client.set_nonblocking(true).unwrap();
    assert!(system::is_nonblocking(client.fd().unwrap()));
    client.set_nonblocking(false).unwrap();
    assert!(!system::is_nonblocking(inside));

    let (client, peer) = with_raw_peer::<A>(&[Opt::CloseTimeout(0)]);
    client.set_nonblocking(true).unwrap();
    assert!(system::is_nonblocking(client.fd().unwrap()));
    drop(peer);
    let (client, peer) = with_raw_peer::<A>(&[Opt::CloseTimeout(0)]);
    client.set_nonblocking(true).unwrap();
    client.set_nonblocking(false).unwrap();
    assert!(!system::is_nonblocking(system::socket_at(peer.peer_addr().unwrap())));
    let (client, _peer) = with_raw_peer::<A>(&[Opt::CloseTimeout(0)]);
    client.set_nonblocking(false).unwrap();
    assert!(!system::is_nonblocking(client.fd().unwrap()));
}

/// T4: so is one that is given up.
fn the_released_descriptor_has_the_mode_that_was_asked_for<A: Api>() {
    let (client, _peer) = with_raw_peer::<A>(&[]);
    assert!(!system::is_nonblocking(client.release().unwrap().as_raw_fd()));
    let (client, _peer) = with_raw_peer::<A>(&[]);
    client.set_nonblocking(true).unwrap();
    assert!(system::is_nonblocking(client.release().unwrap().as_raw_fd()));
    // One that nobody could wait on in the kernel until now.
    let token = A::token();
    let (client, _peer) = with_raw_peer::<A>(&[Opt::Cancel(&token)]);
    assert!(!system::is_nonblocking(client.release().unwrap().as_raw_fd()));
}

/// I1: whichever call is the first on a connection, it waits, with a timeout and without.
fn the_first_call_waits<A: Api>() {
    for timeout in [INFINITE, 20_000] {
        let options = [Opt::CloseTimeout(0), Opt::ReadTimeout(timeout), Opt::WriteTimeout(timeout)];
        let options = if timeout == INFINITE { &options[..1] } else { &options[..] };
        for waiting in waiting_calls::<A>() {
            let (client, mut peer) = with_raw_peer::<A>(options);
            let (outcome, _) = while_waiting(
                || (waiting.call)(&client),
                || {
                    // Ends a read, and then a write.
                    peer.write_all(&[b';'; 64]).unwrap();
                    peer.write_all(b"\n").unwrap();
                    peer.shutdown(Shutdown::Write).unwrap();
                    if waiting.name.starts_with("write") {
                        let mut left = vec![0; 1 << 20];
                        let mut read = 0;
                        while read < MORE_THAN_FITS {
                            read += peer.read(&mut left).unwrap();
                        }
                        system::reset(peer);
                    }
                },
            );
            // "write" goes on for ever, until the reset.
            if waiting.name == "write" {
                fails(outcome, ErrorKind::Reset);
            } else {
                outcome.unwrap_or_else(|e| panic!("{}, {timeout} ms: {e:?}", waiting.name));
            }
        }
    }
}

/// I1: and ends when its time is over, not sooner.
fn the_first_call_ends_in_time<A: Api>() {
    for ms in [15, 200] {
        let options = [Opt::CloseTimeout(0), Opt::ReadTimeout(ms), Opt::WriteTimeout(ms)];
        let time = Duration::from_millis(ms.try_into().unwrap());
        for waiting in waiting_calls::<A>() {
            if waiting.name == "wait_hangup" {
                continue; // its time is its own
            }
            promptly(time + Duration::from_millis(60), || {
                let (client, _peer) = with_raw_peer::<A>(&options);
                let (outcome, took) = timed(|| (waiting.call)(&client));
                fails(outcome, ErrorKind::TimedOut);
                // The kernel's timers count in ticks.
                assert!(took + Duration::from_millis(10) >= time, "{}: {took:?}", waiting.name);
                if waiting.name.starts_with("write") { Duration::ZERO } else { took }
            });
        }
    }
}

/// T1: a token ends it.
fn the_first_call_is_cancelled<A: Api>() {
    for waiting in waiting_calls::<A>() {
        let token = A::token();
        let (client, _peer) = with_raw_peer::<A>(&[Opt::CloseTimeout(0), Opt::Cancel(&token)]);
        let (outcome, _) = while_waiting(|| (waiting.call)(&client), || token.fire());
        fails(outcome, ErrorKind::Cancelled);
    }
}

/// I1: in non-blocking mode it does not wait.
fn the_first_call_does_not_wait_in_nonblocking_mode<A: Api>() {
    for waiting in waiting_calls::<A>() {
        if waiting.name == "wait_hangup" {
            continue; // it is there to wait
        }
        let (client, _peer) = with_raw_peer::<A>(&[Opt::CloseTimeout(0)]);
        client.set_nonblocking(true).unwrap();
        fails((waiting.call)(&client), ErrorKind::WouldBlock);
    }
}

/// I2: it is complete, although the kernel first takes a part.
fn a_first_write_that_does_not_fit_waits<A: Api>() {
    const SIZE: usize = 20 << 20;
    let (client, mut peer) = with_raw_peer::<A>(&[Opt::CloseTimeout(0)]);
    let sent: Vec<u8> = (0..SIZE).map(|i| (i % 251) as u8).collect();
    let mut received = Vec::new();
    let (outcome, _) = while_waiting(
        || client.write_all(&sent).and_then(|()| client.shutdown_write()),
        || {
            peer.read_to_end(&mut received).unwrap();
        },
    );
    outcome.unwrap();
    assert!(received == sent);
}

/// T1: calls wait in the kernel when the token is gone.
fn a_token_that_is_taken_off_leaves_calls_that_wait<A: Api>() {
    let token = A::token();
    let (client, mut peer) = with_raw_peer::<A>(&[Opt::CloseTimeout(0), Opt::Cancel(&token)]);
    peer.write_all(b"1").unwrap();
    assert_eq!(client.read(&mut [0; 8]).unwrap(), 1);
    client.set_cancel(None);
    let (outcome, _) =
        while_waiting(|| client.read(&mut [0; 8]), || peer.write_all(b"22").unwrap());
    assert_eq!(outcome.unwrap(), 2);
    assert!(!system::is_nonblocking(system::socket_at(peer.peer_addr().unwrap())));
}

/// T2: a call of another thread that waits already is not disturbed by the switch.
fn calls_that_wait_already_go_on<A: Api>() {
    let token = A::token();
    let (client, mut peer) = with_raw_peer::<A>(&[Opt::CloseTimeout(0), Opt::Cancel(&token)]);
    let inside = system::socket_at(peer.peer_addr().unwrap());
    thread::scope(|scope| {
        let hangup = scope.spawn(|| client.wait_hangup(INFINITE));
        // With the token it waits in poll.
        let (read, _) = while_waiting(
            || client.read(&mut [0; 8]),
            || {
                assert!(system::is_nonblocking(inside));
                client.set_cancel(None);
                // The first calls that wait in the kernel, and the descriptor for others.
                client.set_read_timeout(50).unwrap();
                fails(client.read(&mut [0; 8]), ErrorKind::TimedOut);
                assert_eq!(client.fd().unwrap(), inside);
                assert!(!system::is_nonblocking(inside));
                client.write_all(b"still here").unwrap();
                let mut heard = [0; 10];
                peer.read_exact(&mut heard).unwrap();
                peer.write_all(b"!").unwrap();
            },
        );
        assert_eq!(read.unwrap(), 1);
        assert!(!hangup.is_finished());
        peer.shutdown(Shutdown::Write).unwrap();
        assert_eq!(hangup.join().unwrap().unwrap(), End::ClosedByPeer);
    });
}

/// T2: threads that make their first calls at once while another sets the mode.
fn the_mode_agrees_with_what_was_set_last<A: Api>() {
    for round in 0..200 {
        let (client, mut peer) = with_raw_peer::<A>(&[Opt::CloseTimeout(0), Opt::ReadTimeout(5)]);
        peer.write_all(b"1").unwrap();
        let on = round % 2 == 0;
        thread::scope(|scope| {
            scope.spawn(|| client.read(&mut [0; 1]));
            scope.spawn(|| client.write_all(b"x").unwrap());
            scope.spawn(|| client.fd().unwrap());
            scope.spawn(|| {
                client.set_nonblocking(!on).unwrap();
                client.set_nonblocking(on).unwrap();
            });
        });
        assert_eq!(system::is_nonblocking(client.fd().unwrap()), on, "round {round}");
        let kind = if on { ErrorKind::WouldBlock } else { ErrorKind::TimedOut };
        let _ = client.read(&mut [0; 1]); // the byte, if the thread was too early for it
        fails(client.read(&mut [0; 1]), kind);
    }
}
