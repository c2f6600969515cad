//! I1: writes of some bytes, of a whole buffer, and of several buffers. I2: no SIGPIPE.

use crate::support::libc;
use crate::support::os::AsRawFd;
use std::io::Read;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::support;
use crate::support::{
    Api, Client, INFINITE, Opt, Pair, TRANSPORTS, Token, Transport, eventually, fails, pair,
    promptly, small_pair, system, timed, with_raw_peer,
};
use keepsock::{ErrorKind, Framing, LengthFormat};

both_apis![
    write_all_sends_the_whole_buffer,
    write_slices_sends_buffers_in_order,
    write_returns_the_accepted_bytes,
    write_of_zero_bytes_succeeds,
    write_of_zero_bytes_fails_after_a_known_end,
    write_to_peer_that_never_reads_times_out,
    write_timeout_that_is_short_is_exact,
    write_deadline_covers_the_whole_call,
    write_after_reset_fails,
    write_deadline_holds_for_huge_buffers,
    write_moves_a_bounded_part_when_a_deadline_is_set,
    message_that_is_unfinished_is_continued,
    message_that_is_unfinished_permits_no_other_write,
    message_that_is_unfinished_permits_the_end,
    message_that_is_unfinished_is_not_continued_by_a_waiting_call,
    message_is_unfinished_after_an_idle_timeout,
    message_that_is_unfinished_hides_no_end,
    message_without_an_accepted_byte_is_not_unfinished,
    #[cfg(feature = "serve")] {
        write_to_closed_peer_raises_no_sigpipe,
    }
];

type AnyWrite<'a, A> = dyn Fn(&<A as Api>::Client, &[u8]) -> support::Outcome<()> + 'a;
type Call<A> = fn(&<A as Api>::Client) -> support::Outcome<()>;
type WriteCall<A> = fn(&<A as Api>::Client, &[u8]) -> support::Outcome<()>;

/// Bytes that differ from their neighbors and do not repeat with any buffer's size.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 251) as u8).collect()
}

/// More than any of these calls can send in its time.
const HUGE: usize = if cfg!(target_pointer_width = "64") { 8 << 30 } else { 1 << 30 };

/// I1: the deadline also ends a call that rarely waits because its peer reads as fast as it can.
/// The deadline is long enough for the kernel's own timer, which counts only the time that a call
/// sleeps.
fn write_deadline_holds_for_huge_buffers<A: Api>() {
    if cfg!(target_pointer_width = "32") {
        support::skip("no buffer in an address space of 32 bits takes as long as the deadline");
    }
    const LIMIT: Duration = Duration::from_millis(500);
    // Pages that are only read share one page of zeros.
    let huge = vec![0; HUGE];
    let file = system::blank_file(HUGE as u64);
    let whole = |client: &A::Client| client.write_all(&huge);
    // On Windows the length of a slice has 32 bits.
    let len = if cfg!(windows) { 1 << 30 } else { HUGE / 2 };
    if cfg!(windows) && support::api::<A>() == "C" {
        let (client, _peer) = with_raw_peer::<A>(&[Opt::CloseTimeout(0)]);
        fails(client.write_slices(&[&huge]), ErrorKind::InvalidArgument);
    }
    let parts: Vec<_> = huge.chunks(len).collect();
    let parts = |client: &A::Client| client.write_slices(&parts);
    let file = |client: &A::Client| client.send_file(file.as_raw_fd(), 0, HUGE as u64).map(drop);
    for call in [&whole as &dyn Fn(&A::Client) -> support::Outcome<()>, &parts, &file] {
        promptly(Duration::from_millis(100), || {
            let (client, mut peer) = with_raw_peer::<A>(&[Opt::WriteTimeout(500)]);
            let reader = thread::spawn(move || {
                let mut buf = vec![0; 1 << 20];
                while peer.read(&mut buf).is_ok_and(|n| n > 0) {}
            });
            let (outcome, took) = timed(|| call(&client));
            let failure = fails(outcome, ErrorKind::TimedOut);
            assert!(failure.transferred > 0 && took >= LIMIT, "{failure:?} after {took:?}");
            client.abort();
            reader.join().unwrap();
            took - LIMIT
        });
    }
}

/// I1: no system call copies so much that the copy alone could exceed the deadline.
fn write_moves_a_bounded_part_when_a_deadline_is_set<A: Api>() {
    const LEN: usize = 64 << 20;
    let bytes = vec![0; LEN];
    for (timeout, most) in [(INFINITE, LEN), (20_000, LEN / 8)] {
        let (client, mut peer) = with_raw_peer::<A>(&[Opt::WriteTimeout(timeout)]);
        let reader = thread::spawn(move || {
            let mut buf = vec![0; 1 << 20];
            while peer.read(&mut buf).is_ok_and(|n| n > 0) {}
        });
        let taken = client.write(&bytes).unwrap();
        assert!(taken <= most, "{taken} bytes in one call, with a timeout of {timeout} ms");
        // The control case: on Linux a call without a deadline waits in the kernel until all bytes are
        // accepted.
        let waits = cfg!(keepsock_linux) && timeout == INFINITE;
        assert!(!waits || taken == LEN, "{taken} bytes");
        client.abort();
        reader.join().unwrap();
    }
}

/// I1: write_all sends a whole buffer that is larger than the kernel's buffers.
fn write_all_sends_the_whole_buffer<A: Api>() {
    let sent = pattern(3 << 20);
    for transport in TRANSPORTS {
        let p = pair::<A>(transport);
        thread::scope(|scope| {
            scope.spawn(|| {
                p.client.write_all(&sent).unwrap();
                p.client.shutdown_write().unwrap();
            });
            let mut got = vec![0; sent.len()];
            p.accepted.read_exact(&mut got).unwrap();
            assert!(got == sent);
            assert_eq!(p.accepted.read(&mut got).unwrap(), 0);
        });
    }
}

/// I1: several buffers, with empty ones and more than one system call accepts (IOV_MAX), arrive as
/// one.
fn write_slices_sends_buffers_in_order<A: Api>() {
    let sent = pattern(2 << 20);
    for transport in TRANSPORTS {
        let p = pair::<A>(transport);
        for sizes in [&[1usize, 0, 7, 100_000][..], &[0, 0, 1], &[1000; 3], &[3]] {
            let mut parts: Vec<&[u8]> = Vec::new();
            let mut left = &sent[..];
            while !left.is_empty() && parts.len() < 3000 {
                let (part, rest) = left.split_at(sizes[parts.len() % sizes.len()].min(left.len()));
                parts.push(part);
                left = rest;
            }
            let expected = &sent[..sent.len() - left.len()];
            thread::scope(|scope| {
                scope.spawn(|| p.client.write_slices(&parts).unwrap());
                let mut got = vec![0; expected.len()];
                p.accepted.read_exact(&mut got).unwrap();
                assert!(got == expected);
            });
        }
    }
}

/// I1: one write returns the number of accepted bytes, at least one.
fn write_returns_the_accepted_bytes<A: Api>() {
    for transport in TRANSPORTS {
        let p = small_pair::<A>(transport);
        p.client.set_nonblocking(true).unwrap();
        let mut taken = 0;
        let sent = pattern(4 << 20);
        let failure = loop {
            match p.client.write(&sent[taken..]) {
                Ok(n) => {
                    assert!(n > 0);
                    taken += n;
                }
                Err(failure) => break failure,
            }
        };
        assert!(failure.is(ErrorKind::WouldBlock), "{failure:?}");
        p.client.shutdown_write().unwrap();
        let mut got = vec![0; taken];
        p.accepted.read_exact(&mut got).unwrap();
        assert!(got == sent[..taken]);
        assert_eq!(p.accepted.read(&mut got).unwrap(), 0);
    }
}

/// I1: a write of zero bytes succeeds.
fn write_of_zero_bytes_succeeds<A: Api>() {
    for transport in TRANSPORTS {
        let p = pair::<A>(transport);
        assert_eq!(p.client.write(b"").unwrap(), 0);
        p.client.write_all(b"").unwrap();
        p.client.write_slices(&[]).unwrap();
        p.client.write_slices(&[b"", b""]).unwrap();
        p.client.shutdown_write().unwrap();
        assert_eq!(p.accepted.read(&mut [0; 8]).unwrap(), 0);
    }
}

/// I1, E2: after the end of the write side a write of zero bytes fails as a write of one byte does,
/// in each mode.
fn write_of_zero_bytes_fails_after_a_known_end<A: Api>() {
    let file = system::blank_file(1);
    let fd = file.as_raw_fd();
    let framing = Framing::Raw;
    let calls: [&AnyWrite<A>; 5] = [
        &|c, bytes| c.write(bytes).map(drop),
        &|c, bytes| c.write_all(bytes),
        &|c, bytes| c.write_slices(&[bytes]),
        &|c, bytes| c.write_message(&framing, bytes),
        &|c, bytes| c.send_file(fd, 0, bytes.len() as u64).map(drop),
    ];
    let ends: [fn(&Pair<A>) -> ErrorKind; 3] = [
        |p| {
            p.client.shutdown_write().unwrap();
            ErrorKind::WrongState
        },
        |p| {
            p.client.write_all(b"unread").unwrap();
            p.accepted.abort();
            eventually("a write fails", || p.client.write_all(b"x").is_err());
            ErrorKind::Reset
        },
        |p| {
            p.client.close().unwrap();
            ErrorKind::Closed
        },
    ];
    for transport in TRANSPORTS {
        for (nonblocking, end) in [false, true].into_iter().flat_map(|b| ends.map(|end| (b, end))) {
            let p = pair::<A>(transport);
            p.client.set_nonblocking(nonblocking).unwrap();
            let kind = end(&p);
            for (number, call) in calls.iter().enumerate() {
                for bytes in [&b"x"[..], b""] {
                    println!("{transport:?}, {nonblocking}, {number}, {bytes:?}");
                    fails(call(&p.client, bytes), kind);
                }
            }
        }
    }
}

/// I1: a short timeout ends neither early nor two clock ticks late.
fn write_timeout_that_is_short_is_exact<A: Api>() {
    let p = small_pair::<A>(Transport::Tcp);
    let more = vec![0; 4 << 20];
    p.client.set_write_timeout(100).unwrap();
    fails(p.client.write_all(&more), ErrorKind::TimedOut);
    for ms in [1, 10, 20, 50] {
        p.client.set_write_timeout(ms).unwrap();
        let limit = Duration::from_millis(u64::try_from(ms).unwrap());
        promptly(limit + Duration::from_millis(2), || {
            let (outcome, took) = timed(|| p.client.write_all(&more));
            fails(outcome, ErrorKind::TimedOut);
            assert!(took >= limit, "{took:?} of {limit:?}");
            took
        });
    }
}

/// I1: a write to a peer that never reads times out. The error has the number of transferred bytes,
/// and exactly these arrive.
fn write_to_peer_that_never_reads_times_out<A: Api>() {
    let sent = pattern(4 << 20);
    let calls: [WriteCall<A>; 2] =
        [|c, b| c.write_all(b), |c, b| c.write_slices(&[&b[..10], &b[10..]])];
    for transport in TRANSPORTS {
        for call in calls {
            let p = small_pair::<A>(transport);
            p.client.set_write_timeout(60).unwrap();
            let (outcome, took) = timed(|| call(&p.client, &sent));
            let failure = fails(outcome, ErrorKind::TimedOut);
            assert!(took >= Duration::from_millis(60), "{took:?}");
            assert!(failure.transferred > 0 && failure.transferred < sent.len());
            assert_eq!(&*failure.operation, "write");
            let text = format!("{} bytes transferred", failure.transferred);
            assert!(failure.message.contains(&text), "{failure:?}");
            // The socket remains usable.
            let mut got = vec![0; failure.transferred];
            p.accepted.read_exact(&mut got).unwrap();
            assert!(got == sent[..got.len()]);
            p.client.set_write_timeout(INFINITE).unwrap();
            p.client.write_all(b"more").unwrap();
            p.accepted.read_exact(&mut got[..4]).unwrap();
            assert_eq!(&got[..4], b"more");
        }
    }
}

/// I1: a peer that occasionally reads a little does not extend the call.
fn write_deadline_covers_the_whole_call<A: Api>() {
    let (client, mut peer) = with_raw_peer::<A>(&[Opt::WriteTimeout(200)]);
    system::shrink_buffers(client.fd().unwrap());
    let sent = vec![0; 256 << 20];
    let reader = thread::spawn(move || {
        let mut buf = vec![0; 64 << 10];
        while peer.read(&mut buf).is_ok_and(|n| n > 0) {
            thread::sleep(Duration::from_millis(1));
        }
    });
    support::promptly(Duration::from_millis(280), || {
        let (outcome, took) = timed(|| client.write_all(&sent));
        fails(outcome, ErrorKind::TimedOut);
        assert!(took >= Duration::from_millis(200), "{took:?}");
        took
    });
    client.abort();
    reader.join().unwrap();
}

/// I2, I4: a write to a peer that reset the connection fails with an error only.
fn write_after_reset_fails<A: Api>() {
    for transport in TRANSPORTS {
        let p = pair::<A>(transport);
        p.accepted.abort();
        p.client.wait_hangup(INFINITE).unwrap();
        for _ in 0..3 {
            fails(p.client.write(b"x"), ErrorKind::Reset);
            fails(p.client.write_all(b"x"), ErrorKind::Reset);
            fails(p.client.write_slices(&[b"x", b"y"]), ErrorKind::Reset);
        }
    }
}

/// I2: no write function raises SIGPIPE in a program that it would kill, and no socket call changes
/// the disposition of a signal. Rust programs ignore SIGPIPE, so this test needs its own process.
#[cfg(feature = "serve")]
fn write_to_closed_peer_raises_no_sigpipe<A: Api>() {
    const ROLE: &str = "PARITY_SIGPIPE";
    let name = thread::current().name().unwrap().to_owned();
    if std::env::var_os(ROLE).is_some() {
        system::set_disposition(libc::SIGPIPE, libc::SIG_DFL);
        let before = system::dispositions();
        write_to_closed_peer::<A>();
        assert!(before == system::dispositions(), "a signal's disposition was changed");
        return;
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([&name, "--exact", "--nocapture"]).env(ROLE, "1").stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = support::process::start(&mut command).unwrap().wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}\n{text}", output.status);
    assert!(text.contains("1 passed"), "{text}");
}

#[cfg(feature = "serve")]
fn write_to_closed_peer<A: Api>() {
    let token = A::token();
    let calls: [Call<A>; 3] =
        [|c| c.write(b"x").map(drop), |c| c.write_all(b"x"), |c| c.write_slices(&[b"x", b"y"])];
    for transport in TRANSPORTS {
        for call in calls {
            for polled in [false, true] {
                let p = pair::<A>(transport);
                if polled {
                    p.client.set_cancel(Some(&token));
                }
                p.accepted.close().unwrap();
                support::eventually("the peer has closed", || call(&p.client).is_err());
                fails(call(&p.client), ErrorKind::Reset);
                fails(call(&p.client), ErrorKind::Reset);
                // The same after a local half-close.
                let p = pair::<A>(transport);
                p.client.shutdown_write().unwrap();
                fails(call(&p.client), ErrorKind::WrongState);
                // A broadcast is also a write.
                let service = support::Server::serve(
                    &p.server,
                    &[],
                    Box::new(|c: &A::Client| {
                        let _ = c.wait_hangup(support::INFINITE);
                    }),
                )
                .unwrap();
                let listener = A::connect(&support::Server::endpoint(&p.server), &[]).unwrap();
                support::eventually("the connection is served", || {
                    support::Service::connections(&service) == 1
                });
                listener.abort();
                support::Service::broadcast(&service, b"x");
                support::Service::broadcast(&service, b"x");
            }
        }
    }
}

const MESSAGE: usize = 1 << 20;

/// The kinds of framing for a message of zeros, each with the bytes before and after the message.
fn framings() -> [(Framing, &'static [u8], &'static [u8]); 5] {
    let format = LengthFormat::U32Be;
    [
        (Framing::Lines { max: MESSAGE }, b"", b"\n"),
        (Framing::Delimited { delimiter: b';', max: MESSAGE }, b"", b";"),
        (Framing::Prefixed { format, max: MESSAGE }, &[0, 0x10, 0, 0], b""),
        (Framing::Fixed { len: MESSAGE }, b"", b""),
        (Framing::Raw, b"", b""),
    ]
}

/// Reads all bytes that arrive, until there are `len`.
fn drain<A: Api>(peer: &A::Client, got: &mut Vec<u8>, len: usize) {
    let from = got.len();
    got.resize(from + len, 1);
    peer.read_exact(&mut got[from..]).unwrap();
}

/// I1, T2, T4: a message of which the kernel has accepted a part is continued by the same call, in
/// non-blocking mode, after a timeout and after a cancellation. The peer receives it once.
fn message_that_is_unfinished_is_continued<A: Api>() {
    let message = vec![0; MESSAGE];
    let token = A::token();
    for transport in TRANSPORTS {
        for kind in [ErrorKind::WouldBlock, ErrorKind::TimedOut, ErrorKind::Cancelled] {
            for (framing, before, after) in framings() {
                let p = small_pair::<A>(transport);
                let fill = || match kind {
                    ErrorKind::WouldBlock => p.client.set_nonblocking(true).unwrap(),
                    ErrorKind::TimedOut => p.client.set_write_timeout(20).unwrap(),
                    _ => p.client.set_cancel(Some(&token)),
                };
                fill();
                let whole = [before, &message, after].concat();
                let (mut got, mut calls) = (Vec::new(), 0);
                loop {
                    calls += 1;
                    token.reset();
                    let outcome = thread::scope(|scope| {
                        if kind == ErrorKind::Cancelled {
                            scope.spawn(|| {
                                thread::sleep(Duration::from_millis(20));
                                token.fire();
                            });
                        }
                        p.client.write_message(&framing, &message)
                    });
                    let Err(failure) = outcome else { break };
                    assert!(failure.is(kind), "{failure:?}");
                    // The number of bytes of the message in all calls.
                    assert!(failure.transferred >= got.len() && failure.transferred < whole.len());
                    let arrived = failure.transferred - got.len();
                    drain::<A>(&p.accepted, &mut got, arrived);
                    assert!(calls < 10_000);
                }
                assert!(calls > 1);
                let left = whole.len() - got.len();
                drain::<A>(&p.accepted, &mut got, left);
                assert!(got == whole, "{framing:?}");
                token.reset();
                p.client.write_all(b"next").unwrap();
                got.clear();
                drain::<A>(&p.accepted, &mut got, 4);
                assert_eq!(got, b"next");
            }
        }
    }
}

/// I1, K5: no other bytes come into an unfinished message: not those of another write or message, nor a
/// heartbeat. The message is continued afterwards.
fn message_that_is_unfinished_permits_no_other_write<A: Api>() {
    let message = vec![0; MESSAGE];
    let other = vec![1; MESSAGE];
    let (framing, before, after) = framings()[2];
    let file = system::blank_file(10);
    let blocked = system::blank_file(0);
    for transport in TRANSPORTS {
        let p = small_pair::<A>(transport);
        p.client.set_heartbeat(b"beat", 20).unwrap();
        p.client.set_nonblocking(true).unwrap();
        let failure = fails(p.client.write_message(&framing, &message), ErrorKind::WouldBlock);
        let mut got = Vec::new();
        drain::<A>(&p.accepted, &mut got, failure.transferred);
        let calls: [&dyn Fn() -> support::Outcome<()>; 9] = [
            &|| p.client.write(b"x").map(drop),
            &|| p.client.write_all(b"x"),
            &|| p.client.write_all(&message),
            &|| p.client.write_slices(&[b"x", b"y"]),
            &|| p.client.send_file(file.as_raw_fd(), 0, 10).map(drop),
            &|| p.client.write_message(&framing, &other),
            &|| p.client.write_message(&framing, &message[1..]),
            &|| p.client.write_message(&Framing::Raw, &message),
            &|| p.client.release().map(drop),
        ];
        for call in calls {
            let failure = fails(call(), ErrorKind::WrongState);
            assert!(
                failure.message.contains("call write_message with the same framing"),
                "{failure:?}"
            );
        }
        if transport == Transport::Unix {
            let passed = p.client.write_fds(b"x", &[blocked.as_raw_fd()]);
            fails(passed, ErrorKind::WrongState);
        }
        // Several heartbeat intervals.
        for _ in 0..5 {
            thread::sleep(Duration::from_millis(20));
            p.client.check_liveness().unwrap();
        }
        while let Err(failure) = p.client.write_message(&framing, &message) {
            assert!(failure.is(ErrorKind::WouldBlock), "{failure:?}");
            let arrived = failure.transferred - got.len();
            drain::<A>(&p.accepted, &mut got, arrived);
        }
        let left = before.len() + MESSAGE + after.len() - got.len();
        drain::<A>(&p.accepted, &mut got, left);
        assert!(got == [before, &message, after].concat());
        p.client.write_all(b"x").unwrap();
        drain::<A>(&p.accepted, &mut got, 1);
        assert_eq!(got.last(), Some(&b'x'));
    }
}

/// I3: a connection with an unfinished message can be half-closed, closed and aborted.
fn message_that_is_unfinished_permits_the_end<A: Api>() {
    let message = vec![0; MESSAGE];
    let framing = Framing::Prefixed { format: LengthFormat::U32Be, max: MESSAGE };
    let ends: [fn(&A::Client); 3] =
        [|c| c.shutdown_write().unwrap(), |c| drop(c.close()), |c| c.abort()];
    for transport in TRANSPORTS {
        for (i, end) in ends.into_iter().enumerate() {
            let p = small_pair::<A>(transport);
            p.client.set_nonblocking(true).unwrap();
            let failure = fails(p.client.write_message(&framing, &message), ErrorKind::WouldBlock);
            end(&p.client);
            if i < 2 {
                let mut got = Vec::new();
                drain::<A>(&p.accepted, &mut got, failure.transferred);
                fails(p.accepted.read_exact(&mut [0; 1]), ErrorKind::EndOfStream);
            }
        }
    }
}

/// I1: a call that waits for another writer does not continue the message that this writer leaves
/// unfinished, even if it writes the same buffer.
fn message_that_is_unfinished_is_not_continued_by_a_waiting_call<A: Api>() {
    const TIMEOUT: Duration = Duration::from_millis(1000);
    let (message, other) = (vec![0; MESSAGE], vec![1; MESSAGE]);
    let framing = framings()[2].0;
    for transport in TRANSPORTS {
        // A machine under load may start the second call too late.
        let waited = (0..20).any(|_| {
            let p = small_pair::<A>(transport);
            p.client.set_write_timeout(TIMEOUT.as_millis() as i64).unwrap();
            thread::scope(|scope| {
                let first = scope.spawn(|| {
                    let outcome = p.client.write_message(&framing, &message);
                    fails(outcome, ErrorKind::TimedOut);
                    Instant::now()
                });
                p.accepted.read_exact(&mut [0; 1]).unwrap();
                // The timeout of the calls that start from now on.
                p.client.set_write_timeout(10_000).unwrap();
                let start = Instant::now();
                let calls = [&message, &other]
                    .map(|buffer| scope.spawn(|| p.client.write_message(&framing, buffer)));
                let outcomes = calls.map(|call| call.join().unwrap());
                let waited = first.join().unwrap().saturating_duration_since(start) > TIMEOUT / 2;
                if waited {
                    for outcome in outcomes {
                        let failure = fails(outcome, ErrorKind::WrongState);
                        assert_eq!(failure.transferred, 0);
                    }
                }
                waited
            })
        });
        assert!(waited, "no second call started in time");
    }
}

/// I1, K6: a message is also unfinished if its call ends because the connection was idle. The peer
/// receives it once.
fn message_is_unfinished_after_an_idle_timeout<A: Api>() {
    let message = vec![0; MESSAGE];
    let (framing, before, after) = framings()[2];
    for transport in TRANSPORTS {
        for unfinished_before in [false, true] {
            let p = small_pair::<A>(transport);
            p.client.set_nonblocking(true).unwrap();
            if unfinished_before {
                fails(p.client.write_message(&framing, &message), ErrorKind::WouldBlock);
            }
            p.client.set_idle_timeout(50).unwrap();
            support::eventually("the idle timeout", || match p.client.check_liveness() {
                Ok(left) => {
                    thread::sleep(Duration::from_millis(left as u64));
                    false
                }
                Err(failure) => failure.is(ErrorKind::IdleTimeout),
            });
            p.client.set_nonblocking(false).unwrap();
            let (mut got, mut calls) = (Vec::new(), 0);
            while let Err(failure) = p.client.write_message(&framing, &message) {
                assert!(failure.is(ErrorKind::IdleTimeout), "{failure:?}");
                fails(p.client.write_all(b"x"), ErrorKind::WrongState);
                fails(p.client.release(), ErrorKind::WrongState);
                let arrived = failure.transferred - got.len();
                drain::<A>(&p.accepted, &mut got, arrived);
                calls += 1;
                assert!(calls < 10_000);
            }
            assert!(calls > 0);
            let left = before.len() + MESSAGE + after.len() - got.len();
            drain::<A>(&p.accepted, &mut got, left);
            assert!(got == [before, &message, after].concat());
            p.client.write_all(b"next").unwrap();
            drain::<A>(&p.accepted, &mut got, 4);
            assert!(got.ends_with(b"next"));
        }
    }
}

/// I1, E1: after the end of a connection with an unfinished message, writes fail because of that end,
/// and the descriptor can be released.
fn message_that_is_unfinished_hides_no_end<A: Api>() {
    let message = vec![0; MESSAGE];
    let framing = framings()[2].0;
    for transport in TRANSPORTS {
        let p = small_pair::<A>(transport);
        p.client.set_nonblocking(true).unwrap();
        fails(p.client.write_message(&framing, &message), ErrorKind::WouldBlock);
        p.client.shutdown_write().unwrap();
        for outcome in [p.client.write_all(b"x"), p.client.write_message(&framing, &message)] {
            let failure = fails(outcome, ErrorKind::WrongState);
            assert!(!failure.message.contains("call write_message"), "{failure:?}");
        }
        p.client.release().unwrap();

        let p = small_pair::<A>(transport);
        p.client.set_nonblocking(true).unwrap();
        fails(p.client.write_message(&framing, &message), ErrorKind::WouldBlock);
        p.accepted.abort();
        support::eventually("the reset arrives", || {
            let failure = p.client.write_message(&framing, &message).unwrap_err();
            assert!(failure.is(ErrorKind::Reset) || failure.is(ErrorKind::WouldBlock));
            failure.is(ErrorKind::Reset)
        });
        fails(p.client.write_all(b"x"), ErrorKind::Reset);
        fails(p.client.write_message(&Framing::Raw, b"x"), ErrorKind::Reset);
        p.client.release().unwrap();
    }
}

/// I1: after a call that has sent nothing, every write is permitted.
fn message_without_an_accepted_byte_is_not_unfinished<A: Api>() {
    for transport in TRANSPORTS {
        let p = small_pair::<A>(transport);
        p.client.set_nonblocking(true).unwrap();
        while p.client.write(&[1; 64 << 10]).is_ok() {}
        let lines = Framing::Lines { max: 10 };
        let failure = fails(p.client.write_message(&lines, b"line"), ErrorKind::WouldBlock);
        assert_eq!(failure.transferred, 0);
        fails(p.client.write_all(b"x"), ErrorKind::WouldBlock);
        fails(p.client.write_message(&lines, b"a\nb"), ErrorKind::InvalidArgument);
    }
}
