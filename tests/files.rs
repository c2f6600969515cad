//! I5: files to sockets, without SIGPIPE (I2).
#![cfg(target_os = "linux")]
// Generic functions are tests that Clippy does not know for such.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;
mod lab;

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use common::system::{Pest, pestered};
use common::*;
use keepsock::ErrorKind;

both_apis![
    what_arrives_is_what_the_file_has,
    it_is_the_kernel_that_copies,
    a_slow_reader_and_a_timeout,
    signals_do_not_end_it,
    it_takes_the_writers_turn,
    heartbeats_keep_out_of_it,
    the_mode_of_the_socket_stays,
    the_mode_is_changed_meanwhile,
    no_signal_when_the_peer_has_closed,
    a_signal_of_the_programs_own_stays,
    what_is_no_file,
    files_that_the_kernel_does_not_send,
    closed_and_half_closed,
];

fn file_of(bytes: &[u8]) -> File {
    let mut file = system::blank_file(0);
    file.write_all(bytes).unwrap();
    file
}

/// All that comes until the end.
fn read_all<A: Api>(client: &A::Client) -> Vec<u8> {
    let (mut all, mut buf) = (Vec::new(), vec![0; 1 << 16]);
    loop {
        match client.read(&mut buf).unwrap() {
            0 => return all,
            n => all.extend_from_slice(&buf[..n]),
        }
    }
}

/// Sends, ends, and compares; by the kernel's waiting, by poll, with a limit.
fn sends<A: Api>(transport: Transport, file: &File, offset: u64, len: u64, expected: &[u8]) {
    let token = A::token();
    for way in 0..3 {
        let p = pair::<A>(transport);
        match way {
            0 => {}
            1 => p.client.set_cancel(Some(&token)),
            _ => p.client.set_write_timeout(20_000).unwrap(),
        }
        thread::scope(|scope| {
            let got = scope.spawn(|| read_all::<A>(&p.accepted));
            let sent = p.client.send_file(file.as_raw_fd(), offset, len).unwrap();
            assert_eq!(sent, expected.len() as u64);
            p.client.shutdown_write().unwrap();
            assert!(got.join().unwrap() == expected);
        });
    }
}

/// I5: 0, 1 and millions of bytes; from within, and beyond the end.
fn what_arrives_is_what_the_file_has<A: Api>() {
    const LEN: usize = 5_000_017;
    let all = bytes(LEN);
    let mut file = file_of(&all);
    file.seek(SeekFrom::Start(7)).unwrap();
    for transport in TRANSPORTS {
        let mut check = |offset: usize, len: u64, expected: &[u8]| {
            sends::<A>(transport, &file, offset as u64, len, expected);
            assert_eq!(file.stream_position().unwrap(), 7, "the file's own position");
        };
        check(0, 0, &[]);
        check(0, 1, &all[..1]);
        check(0, LEN as u64, &all);
        check(0, u64::MAX, &all);
        check(1_234_567, 1_000_000, &all[1_234_567..2_234_567]);
        check(LEN - 10, 1000, &all[LEN - 10..]);
        check(LEN, 1000, &[]);
        check(LEN + 1, u64::MAX, &[]);
    }
    let p = pair::<A>(Transport::Tcp);
    let failure = p.client.send_file(file.as_raw_fd(), 1 << 63, 1);
    fails(failure, ErrorKind::InvalidArgument);
    // On a disk.
    let dir = TempDir::new();
    std::fs::write(dir.path("file"), &all).unwrap();
    sends::<A>(Transport::Tcp, &File::open(dir.path("file")).unwrap(), 5, u64::MAX, &all[5..]);
}

/// I5: in a process that may not read files at an offset, what comes was sent by the kernel.
fn it_is_the_kernel_that_copies<A: Api>() {
    lab::in_process(&name::<A>("it_is_the_kernel_that_copies"), Duration::from_secs(20), || {
        let all = bytes(1 << 20);
        let file = file_of(&all);
        lab::forbid(libc::SYS_pread64, None, libc::EIO);
        for transport in TRANSPORTS {
            sends::<A>(transport, &file, 0, u64::MAX, &all);
        }
    });
}

/// I1: one limit for the whole call, however often a part is taken; the error tells the progress.
fn a_slow_reader_and_a_timeout<A: Api>() {
    const LIMIT: Duration = Duration::from_millis(400);
    let file = system::blank_file(MORE_THAN_FITS as u64);
    for transport in TRANSPORTS {
        let p = small_pair::<A>(transport);
        p.client.set_write_timeout(400).unwrap();
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let slow = scope.spawn(|| {
                // As much in each turn that a busy machine has it take several parts in time, too.
                let (mut read, mut buf) = (0, [0; 8192]);
                while !over.load(Ordering::Acquire) {
                    read += p.accepted.read(&mut buf).unwrap();
                    thread::sleep(Duration::from_millis(5));
                }
                read + read_all::<A>(&p.accepted).len()
            });
            let (outcome, took) = {
                let _over = OnDrop(|| {
                    over.store(true, Ordering::Release);
                });
                timed(|| p.client.send_file(file.as_raw_fd(), 0, u64::MAX))
            };
            p.client.shutdown_write().unwrap();
            let failure = fails(outcome, ErrorKind::TimedOut);
            assert!(took >= LIMIT - Duration::from_millis(10), "{took:?}");
            assert!(took < LIMIT * 3, "{took:?}");
            assert!(failure.transferred > 100_000, "{failure:?}");
            assert_eq!(slow.join().unwrap(), failure.transferred);
        });
    }
}

/// I1: nor do signals.
fn signals_do_not_end_it<A: Api>() {
    const LEN: usize = 1 << 20;
    let all = bytes(LEN);
    let file = file_of(&all);
    let pest = Pest { every: Duration::from_millis(2), signals: 8 };
    for transport in TRANSPORTS {
        for limit in [INFINITE, 20_000] {
            let p = small_pair::<A>(transport);
            p.client.set_write_timeout(limit).unwrap();
            let then = || {
                let mut got = vec![0; LEN];
                p.accepted.read_exact(&mut got).unwrap();
                assert!(got == all);
            };
            let send = || p.client.send_file(file.as_raw_fd(), 0, u64::MAX);
            assert_eq!(pestered(pest, send, then).unwrap(), LEN as u64);
        }
    }
}

/// T2: nothing of another thread's comes into the middle.
fn it_takes_the_writers_turn<A: Api>() {
    const LEN: usize = 1 << 20;
    let file = file_of(&vec![b'f'; LEN]);
    let p = small_pair::<A>(Transport::Unix);
    thread::scope(|scope| {
        let send = scope.spawn(|| p.client.send_file(file.as_raw_fd(), 0, u64::MAX));
        let mut got = vec![0; LEN + 5];
        p.accepted.read_exact(&mut got[..1]).unwrap();
        let write = scope.spawn(|| p.client.write_all(b"after"));
        p.accepted.read_exact(&mut got[1..]).unwrap();
        assert!(got[..LEN].iter().all(|b| *b == b'f'));
        assert_eq!(&got[LEN..], b"after");
        assert_eq!(send.join().unwrap().unwrap(), LEN as u64);
        write.join().unwrap().unwrap();
    });
}

/// K5: no heartbeat comes into a file, nor after one of which a part was sent.
fn heartbeats_keep_out_of_it<A: Api>() {
    const PING: &[u8] = b"PING\r\n";
    let len: usize = 4 << 20;
    let file = file_of(&vec![b'f'; len]);
    let options = || [Opt::Heartbeat(PING, 20), Opt::CloseTimeout(0)];
    let (client, mut peer) = with_raw_peer::<A>(&options());
    thread::scope(|scope| {
        scope.spawn(|| client.send_file(file.as_raw_fd(), 0, u64::MAX).unwrap());
        let reader = scope.spawn(|| client.read(&mut [0; 8]));
        let mut got = vec![0; len];
        let (slow, rest) = got.split_at_mut(1 << 16);
        for piece in slow.chunks_mut(1 << 12) {
            peer.read_exact(piece).unwrap();
            thread::sleep(Duration::from_millis(10));
        }
        peer.read_exact(rest).unwrap();
        assert!(got.iter().all(|b| *b == b'f'));
        // After it they go on.
        let mut ping = [0; PING.len()];
        peer.read_exact(&mut ping).unwrap();
        assert_eq!(ping, PING);
        peer.write_all(b"x").unwrap();
        assert_eq!(reader.join().unwrap().unwrap(), 1);
    });

    let (client, mut peer) = with_raw_peer::<A>(&options());
    client.set_nonblocking(true).unwrap();
    let blank = system::blank_file(MORE_THAN_FITS as u64);
    let outcome = client.send_file(blank.as_raw_fd(), 0, u64::MAX);
    let mut got = vec![0; fails(outcome, ErrorKind::WouldBlock).transferred];
    peer.read_exact(&mut got).unwrap();
    thread::sleep(Duration::from_millis(40));
    client.check_alive().unwrap();
    // What is left of it, and up to the file's end: it is complete.
    let from = MORE_THAN_FITS as u64 - 100;
    assert_eq!(client.send_file(blank.as_raw_fd(), from, u64::MAX).unwrap(), 100);
    got.resize(100, 1);
    peer.read_exact(&mut got).unwrap();
    assert!(got.iter().all(|b| *b == 0), "a heartbeat within it");
    thread::sleep(Duration::from_millis(40));
    client.check_alive().unwrap();
    got.resize(PING.len(), 0);
    peer.read_exact(&mut got).unwrap();
    assert_eq!(got, PING);
}

/// T4: the descriptor is blocking or not as before, and another thread that reads meanwhile waits as
/// it is to.
fn the_mode_of_the_socket_stays<A: Api>() {
    const LEN: usize = 1 << 20;
    let file = file_of(&bytes(LEN));
    let token = A::token();
    for way in 0..3 {
        let p = small_pair::<A>(Transport::Unix);
        match way {
            0 => p.client.set_cancel(Some(&token)),
            1 => p.client.set_write_timeout(20_000).unwrap(),
            _ => p.client.set_nonblocking(true).unwrap(),
        }
        let fd = p.client.fd().unwrap();
        let before = system::is_nonblocking(fd);
        assert_eq!(before, way == 2);
        thread::scope(|scope| {
            let read = scope.spawn(|| match way {
                2 => Ok(1),
                _ => p.client.read(&mut [0; 8]),
            });
            let send = scope.spawn(|| p.client.send_file(file.as_raw_fd(), 0, u64::MAX));
            if way == 2 {
                fails(send.join().unwrap(), ErrorKind::WouldBlock);
            } else {
                let mut got = vec![0; LEN];
                p.accepted.read_exact(&mut got[..LEN / 2]).unwrap();
                // In the middle of it.
                assert!(system::is_nonblocking(fd));
                let (tell, told) = mpsc::channel();
                let client = &p.client;
                let late = scope.spawn(move || {
                    tell.send(system::thread_id()).unwrap();
                    client.read(&mut [0; 8])
                });
                let reader = told.recv_timeout(Duration::from_secs(10)).unwrap();
                eventually("it waits", || late.is_finished() || system::waits_for_a_socket(reader));
                assert!(!late.is_finished());
                p.accepted.read_exact(&mut got[LEN / 2..]).unwrap();
                assert_eq!(send.join().unwrap().unwrap(), LEN as u64);
                p.accepted.write_all(b"xy").unwrap();
                p.accepted.shutdown_write().unwrap();
                let came = late.join().unwrap().unwrap() + read.join().unwrap().unwrap();
                assert_eq!(came, 2);
            }
        });
        assert_eq!(system::is_nonblocking(fd), before);
        p.client.set_nonblocking(false).unwrap();
        assert!(!system::is_nonblocking(fd));
    }
}

/// T4: nor does another thread's change of the mode reach a call that is under way.
fn the_mode_is_changed_meanwhile<A: Api>() {
    let file = system::blank_file(MORE_THAN_FITS as u64);
    for transport in TRANSPORTS {
        let p = small_pair::<A>(transport);
        let token = A::token();
        p.client.set_cancel(Some(&token));
        let fd = p.client.fd().unwrap();
        let (outcome, _) = while_waiting(
            || p.client.send_file(file.as_raw_fd(), 0, u64::MAX),
            || {
                p.client.set_nonblocking(false).unwrap();
                // It goes on, and comes to wait again.
                p.accepted.read_exact(&mut vec![0; 1 << 18]).unwrap();
                assert!(system::is_nonblocking(fd));
                token.fire();
            },
        );
        fails(outcome, ErrorKind::Cancelled);
        assert!(!system::is_nonblocking(fd));
    }
}

/// I2: SIGPIPE, which would end this process, does not come; nor does it wait for its time.
fn no_signal_when_the_peer_has_closed<A: Api>() {
    lab::in_process(
        &name::<A>("no_signal_when_the_peer_has_closed"),
        Duration::from_secs(20),
        || {
            let file = system::blank_file(MORE_THAN_FITS as u64);
            // The Rust runtime ignores it; C programs do not.
            system::set_disposition(libc::SIGPIPE, libc::SIG_DFL);
            for transport in TRANSPORTS {
                for limit in [INFINITE, 20_000] {
                    let p = pair::<A>(transport);
                    p.client.set_write_timeout(limit).unwrap();
                    // Reset, so that one that had read nothing is no graceful end.
                    p.accepted.abort();
                    let failed = || p.client.send_file(file.as_raw_fd(), 0, u64::MAX);
                    fails(failed(), ErrorKind::Reset);
                    fails(failed(), ErrorKind::Reset);
                    assert!(!system::is_pending(libc::SIGPIPE));
                    assert!(!system::block_signal(libc::SIGPIPE, false), "it stayed blocked");

                    // While it is under way.
                    let p = small_pair::<A>(transport);
                    p.client.set_write_timeout(limit).unwrap();
                    let (outcome, _) = while_waiting(
                        || {
                            let outcome = p.client.send_file(file.as_raw_fd(), 0, u64::MAX);
                            assert!(!system::is_pending(libc::SIGPIPE));
                            assert!(!system::block_signal(libc::SIGPIPE, false));
                            outcome
                        },
                        || p.accepted.abort(),
                    );
                    let failure = fails(outcome, ErrorKind::Reset);
                    assert!(failure.transferred > 0, "{failure:?}");
                }
            }
            // The control: without care it ends the process. Only a child can show that.
            assert!(system::dies_of_sigpipe());
        },
    );
}

/// I2: a SIGPIPE that the program has blocked, and that waits for it, is its own.
fn a_signal_of_the_programs_own_stays<A: Api>() {
    lab::in_process(
        &name::<A>("a_signal_of_the_programs_own_stays"),
        Duration::from_secs(20),
        || {
            let file = system::blank_file(MORE_THAN_FITS as u64);
            system::set_disposition(libc::SIGPIPE, libc::SIG_DFL);
            let closed = || {
                let p = pair::<A>(Transport::Unix);
                p.accepted.abort();
                fails(p.client.send_file(file.as_raw_fd(), 0, u64::MAX), ErrorKind::Reset);
            };
            assert!(!system::block_signal(libc::SIGPIPE, true));
            closed();
            assert!(!system::is_pending(libc::SIGPIPE), "ours was left behind");
            assert!(system::block_signal(libc::SIGPIPE, true), "it stays blocked");
            system::raise(libc::SIGPIPE);
            closed();
            assert!(system::is_pending(libc::SIGPIPE), "the program's was taken");
        },
    );
}

/// E1: a clear error, and the connection goes on.
fn what_is_no_file<A: Api>() {
    let (reader, _writer) = system::pipe();
    let directory = File::open("/").unwrap();
    let written = File::create("/dev/null").unwrap();
    let p = pair::<A>(Transport::Tcp);
    for (fd, why) in [
        (reader.as_raw_fd(), "a pipe or a socket has no offsets"),
        (p.client.fd().unwrap(), "a pipe or a socket has no offsets"),
        (directory.as_raw_fd(), "it is a directory"),
        (written.as_raw_fd(), "not open for reading"),
    ] {
        let failure = fails(p.client.send_file(fd, 0, 10), ErrorKind::InvalidArgument);
        assert!(failure.message.contains(why), "{failure:?}");
        assert_eq!(failure.transferred, 0);
    }
    p.client.write_all(b"all the same\n").unwrap();
    assert_eq!(p.accepted.read_line(64).unwrap(), "all the same");
}

/// I5: those are read and sent.
fn files_that_the_kernel_does_not_send<A: Api>() {
    // Of /proc, which has no pages.
    let status = File::open("/proc/self/limits").unwrap();
    for transport in TRANSPORTS {
        let p = pair::<A>(transport);
        let sent = p.client.send_file(status.as_raw_fd(), 0, u64::MAX).unwrap();
        p.client.shutdown_write().unwrap();
        let got = String::from_utf8(read_all::<A>(&p.accepted)).unwrap();
        assert_eq!(got.len() as u64, sent);
        assert!(got.starts_with("Limit "), "{got}");
    }
    lab::in_process(
        &name::<A>("files_that_the_kernel_does_not_send"),
        Duration::from_secs(20),
        || {
            let all = bytes(1_000_003);
            let file = file_of(&all);
            lab::forbid(libc::SYS_sendfile, None, libc::ENOSYS);
            for transport in TRANSPORTS {
                sends::<A>(transport, &file, 3, u64::MAX, &all[3..]);
            }
            // With the limit of the call, too.
            let p = small_pair::<A>(Transport::Unix);
            p.client.set_write_timeout(200).unwrap();
            let file = system::blank_file(MORE_THAN_FITS as u64);
            let outcome = p.client.send_file(file.as_raw_fd(), 0, u64::MAX);
            assert!(fails(outcome, ErrorKind::TimedOut).transferred > 0);
        },
    );
}

/// I5: no file goes over a connection whose sending side has ended.
fn closed_and_half_closed<A: Api>() {
    let file = file_of(b"x");
    let p = pair::<A>(Transport::Tcp);
    p.client.shutdown_write().unwrap();
    fails(p.client.send_file(file.as_raw_fd(), 0, 1), ErrorKind::WrongState);
    p.client.close().unwrap();
    fails(p.client.send_file(file.as_raw_fd(), 0, 1), ErrorKind::Closed);
}
