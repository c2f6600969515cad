//! The blocking mode of a connected descriptor: a connect leaves it non-blocking until a call waits
//! in the kernel, or the program borrows it. The caller must not notice.

use crate::support::os::AsRawFd;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::thread;
use std::time::Duration;

#[cfg(feature = "datagram")]
use crate::support::Datagrams;
use crate::support::{
    Api, Client, INFINITE, MORE_THAN_FITS, Opt, Server, Token, fails, promptly, system, timed,
    waiting_calls, while_waiting, with_raw_peer,
};
use keepsock::{CloseReason, ErrorKind};

both_apis![
    borrowed_descriptor_has_the_configured_mode,
    released_descriptor_has_the_configured_mode,
    release_client_leaves_no_timeouts,
    first_call_on_connection_waits,
    first_call_with_timeout_ends_in_time,
    first_call_with_token_is_cancelled,
    first_call_in_nonblocking_mode_does_not_wait,
    first_write_beyond_buffer_waits,
    removed_token_lets_calls_wait_in_the_kernel,
    mode_switch_during_call_does_not_end_it,
    mode_after_concurrent_calls_is_the_last_one_set,
    #[cfg(feature = "activation")] {
        release_server_restores_the_mode,
    }
    #[cfg(feature = "datagram")] {
        release_datagram_restores_the_mode,
    }
];

/// T4: a borrowed descriptor is blocking, unless non-blocking mode was configured.
fn borrowed_descriptor_has_the_configured_mode<A: Api>() {
    let (client, peer) = with_raw_peer::<A>(&[Opt::CloseTimeout(0)]);
    let inside = system::socket_at(peer.peer_addr().unwrap());
    // The control case: the descriptor is non-blocking before.
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

/// T4: a released descriptor is blocking, unless non-blocking mode was configured.
fn released_descriptor_has_the_configured_mode<A: Api>() {
    let (client, _peer) = with_raw_peer::<A>(&[]);
    assert!(!system::is_nonblocking(client.release().unwrap().as_raw_fd()));
    let (client, _peer) = with_raw_peer::<A>(&[]);
    client.set_nonblocking(true).unwrap();
    assert!(system::is_nonblocking(client.release().unwrap().as_raw_fd()));
    // A connection that could not wait in the kernel until now.
    let token = A::token();
    let (client, _peer) = with_raw_peer::<A>(&[Opt::Cancel(&token)]);
    assert!(!system::is_nonblocking(client.release().unwrap().as_raw_fd()));
}

/// T4: the kernel's timeouts do not remain on a released descriptor, whatever options it was
/// adopted with.
fn release_client_leaves_no_timeouts<A: Api>() {
    let (client, _peer) = with_raw_peer::<A>(&[Opt::ReadTimeout(70), Opt::WriteTimeout(80)]);
    // The control case: the kernel has the timeouts before, in its own ticks.
    assert!(system::timeouts(client.fd().unwrap()).iter().all(|ms| *ms >= 70));
    let fd = client.release().unwrap();
    assert_eq!(system::timeouts(fd.as_raw_fd()), [0, 0]);
    assert!(!system::is_nonblocking(fd.as_raw_fd()));
    let stream = std::net::TcpStream::from(fd);
    stream.set_nonblocking(true).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(90))).unwrap();
    let adopted = A::adopt_client(stream.into(), &[]).map_err(|(_, failure)| failure).unwrap();
    let fd = adopted.release().unwrap();
    assert_eq!(system::timeouts(fd.as_raw_fd()), [0, 0]);
    assert!(!system::is_nonblocking(fd.as_raw_fd()));
}

/// T4: accept with a timeout, a token or several listeners makes the listener non-blocking, and a
/// release restores the mode.
#[cfg(feature = "activation")]
fn release_server_restores_the_mode<A: Api>() {
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    server.set_accept_timeout(70).unwrap();
    assert!(system::is_nonblocking(server.fd().unwrap()), "the control");
    assert!(!system::is_nonblocking(server.release().unwrap().as_raw_fd()));
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    server.set_nonblocking(true).unwrap();
    assert!(system::is_nonblocking(server.release().unwrap().as_raw_fd()));
    // A listener that other processes share keeps the mode on which they rely.
    let server = A::listen("127.0.0.1:0", &[Opt::Handover(true)]).unwrap();
    assert!(system::is_nonblocking(server.release().unwrap().as_raw_fd()));
}

/// T4: a release restores the mode of a datagram socket.
#[cfg(feature = "datagram")]
fn release_datagram_restores_the_mode<A: Api>() {
    let socket = A::Datagram::bind("127.0.0.1:0", &[Opt::ReadTimeout(70)]).unwrap();
    fails(socket.recv(8), ErrorKind::TimedOut);
    let fd = socket.release().unwrap();
    assert!(!system::is_nonblocking(fd.as_raw_fd()));
    assert_eq!(system::timeouts(fd.as_raw_fd()), [0, 0]);
    let socket = A::Datagram::bind("127.0.0.1:0", &[]).unwrap();
    socket.set_nonblocking(true).unwrap();
    assert!(system::is_nonblocking(socket.release().unwrap().as_raw_fd()));
}

/// I1: the first call on a connection waits, whichever call it is, with and without a timeout.
fn first_call_on_connection_waits<A: Api>() {
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
            // "write" continues until the reset.
            if waiting.name == "write" {
                fails(outcome, ErrorKind::Reset);
            } else {
                outcome.unwrap_or_else(|e| panic!("{}, {timeout} ms: {e:?}", waiting.name));
            }
        }
    }
}

/// I1: the first call ends at its timeout, and not earlier.
fn first_call_with_timeout_ends_in_time<A: Api>() {
    for ms in [15, 200] {
        let options = [Opt::CloseTimeout(0), Opt::ReadTimeout(ms), Opt::WriteTimeout(ms)];
        let time = Duration::from_millis(ms.try_into().unwrap());
        for waiting in waiting_calls::<A>() {
            if waiting.name == "wait_hangup" {
                continue; // this call has its own timeout
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

/// T1: a token ends the first call.
fn first_call_with_token_is_cancelled<A: Api>() {
    for waiting in waiting_calls::<A>() {
        let token = A::token();
        let (client, _peer) = with_raw_peer::<A>(&[Opt::CloseTimeout(0), Opt::Cancel(&token)]);
        let (outcome, _) = while_waiting(|| (waiting.call)(&client), || token.fire());
        fails(outcome, ErrorKind::Cancelled);
    }
}

/// I1: in non-blocking mode the first call does not wait.
fn first_call_in_nonblocking_mode_does_not_wait<A: Api>() {
    for waiting in waiting_calls::<A>() {
        if waiting.name == "wait_hangup" {
            continue; // the purpose of this call is to wait
        }
        let (client, _peer) = with_raw_peer::<A>(&[Opt::CloseTimeout(0)]);
        client.set_nonblocking(true).unwrap();
        fails((waiting.call)(&client), ErrorKind::WouldBlock);
    }
}

/// I2: the first write is complete, although the kernel first accepts a part.
fn first_write_beyond_buffer_waits<A: Api>() {
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

/// T1: calls wait in the kernel after the token is removed.
fn removed_token_lets_calls_wait_in_the_kernel<A: Api>() {
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

/// T2: the switch of the mode does not disturb a waiting call of another thread.
fn mode_switch_during_call_does_not_end_it<A: Api>() {
    let token = A::token();
    let (client, mut peer) = with_raw_peer::<A>(&[Opt::CloseTimeout(0), Opt::Cancel(&token)]);
    let inside = system::socket_at(peer.peer_addr().unwrap());
    thread::scope(|scope| {
        let hangup = scope.spawn(|| client.wait_hangup(INFINITE));
        // With the token this call waits in poll.
        let (read, _) = while_waiting(
            || client.read(&mut [0; 8]),
            || {
                assert!(system::is_nonblocking(inside));
                client.set_cancel(None);
                // The first calls that wait in the kernel, and a borrow of the descriptor.
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
        assert_eq!(hangup.join().unwrap().unwrap(), CloseReason::PeerClosed);
    });
}

/// T2: threads make their first calls while another thread sets the mode.
fn mode_after_concurrent_calls_is_the_last_one_set<A: Api>() {
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
        let _ = client.read(&mut [0; 1]); // the byte, if the thread read too early
        fails(client.read(&mut [0; 1]), kind);
    }
}
