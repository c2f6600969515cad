//! I1: writing some bytes, all of a buffer, several buffers. I2: no SIGPIPE.
#![cfg(target_os = "linux")]
// Generic functions are tests that Clippy does not know for such.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::io::Read;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use common::{
    Api, Client, INFINITE, Opt, TRANSPORTS, fails, pair, small_pair, system, timed, with_raw_peer,
};
use keepsock::ErrorKind;

both_apis![
    all_of_a_buffer_arrives,
    several_buffers_arrive_as_one,
    some_bytes_are_what_the_kernel_took,
    nothing_to_write_is_written,
    a_peer_that_never_reads_ends_in_a_timeout,
    one_deadline_covers_the_whole_write,
    writing_to_a_peer_that_reset,
    sigpipe,
];

type Call<A> = fn(&<A as Api>::Client) -> common::Outcome<()>;
type WriteCall<A> = fn(&<A as Api>::Client, &[u8]) -> common::Outcome<()>;

/// Bytes that differ from their neighbours and do not repeat with any buffer's size.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 251) as u8).collect()
}

/// I1: all of a buffer that is larger than what the kernel holds.
fn all_of_a_buffer_arrives<A: Api>() {
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

/// I1: several buffers, empty ones and more than one system call takes (IOV_MAX)
/// among them, arrive as if they were one.
fn several_buffers_arrive_as_one<A: Api>() {
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

/// I1: one write says how many bytes the kernel took, at least one.
fn some_bytes_are_what_the_kernel_took<A: Api>() {
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

/// I1: nothing is a length like others.
fn nothing_to_write_is_written<A: Api>() {
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

/// I1: a peer that never reads makes a write time out; the error says how many bytes
/// were transferred, and exactly these arrive.
fn a_peer_that_never_reads_ends_in_a_timeout<A: Api>() {
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
            assert_eq!(failure.operation, "write");
            let text = format!("{} bytes transferred", failure.transferred);
            assert!(failure.message.contains(&text), "{failure:?}");
            // The socket is as good as before.
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

/// I1: a peer that takes a little now and then does not prolong a call.
fn one_deadline_covers_the_whole_write<A: Api>() {
    let (client, mut peer) = with_raw_peer::<A>(&[Opt::WriteTimeout(200)]);
    system::shrink_buffers(client.fd().unwrap());
    let sent = vec![0; 256 << 20];
    let reader = thread::spawn(move || {
        let mut buf = vec![0; 64 << 10];
        while peer.read(&mut buf).is_ok_and(|n| n > 0) {
            thread::sleep(Duration::from_millis(1));
        }
    });
    common::promptly(Duration::from_millis(280), || {
        let (outcome, took) = timed(|| client.write_all(&sent));
        fails(outcome, ErrorKind::TimedOut);
        assert!(took >= Duration::from_millis(200), "{took:?}");
        took
    });
    client.abort();
    reader.join().unwrap();
}

/// I2, I4: a write to a peer that broke off is an error and nothing worse.
fn writing_to_a_peer_that_reset<A: Api>() {
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

/// I2: no SIGPIPE, whatever way one writes, in a program where it would kill; and no
/// signal's disposition is changed by anything that is done with sockets. Rust's
/// programs ignore SIGPIPE, so this needs one of its own.
fn sigpipe<A: Api>() {
    const ROLE: &str = "PARITY_SIGPIPE";
    let name = thread::current().name().unwrap().to_owned();
    if std::env::var_os(ROLE).is_some() {
        system::set_disposition(libc::SIGPIPE, libc::SIG_DFL);
        let before = system::dispositions();
        write_to_the_departed::<A>();
        assert!(before == system::dispositions(), "a signal's disposition was changed");
        return;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args([&name, "--exact", "--nocapture"])
        .env(ROLE, "1")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}\n{text}", output.status);
    assert!(text.contains("1 passed"), "{text}");
}

fn write_to_the_departed<A: Api>() {
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
                common::eventually("the peer is gone", || call(&p.client).is_err());
                fails(call(&p.client), ErrorKind::Reset);
                fails(call(&p.client), ErrorKind::Reset);
                // Not after our own half-close either.
                let p = pair::<A>(transport);
                p.client.shutdown_write().unwrap();
                fails(call(&p.client), ErrorKind::WrongState);
                // A broadcast is a write too.
                let service = common::Server::serve(
                    &p.server,
                    &[],
                    Box::new(|c: &A::Client| {
                        let _ = c.wait_hangup(2000);
                    }),
                )
                .unwrap();
                let listener = A::connect(&common::Server::endpoint(&p.server), &[]).unwrap();
                common::eventually("it is served", || common::Service::connections(&service) == 1);
                listener.abort();
                common::Service::broadcast(&service, b"x");
                common::Service::broadcast(&service, b"x");
            }
        }
    }
}
