//! I5: files to sockets, without SIGPIPE (I2).

use crate::support::libc;
use crate::support::os::{AsRawFd, RawFd};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::liveness::{PING, heartbeats_wait_for_the_end_of};
use crate::support::system::{Pest, with_signals};
use crate::support::*;
use crate::support::{limits, process, system};
use keepsock::ErrorKind;

both_apis![
    send_file_sends_the_requested_part,
    send_file_beyond_32_bits_sends_the_requested_part,
    send_file_copies_in_the_kernel,
    send_file_to_slow_reader_times_out,
    send_file_interrupted_by_signals_continues,
    send_file_is_not_split_by_writes,
    send_file_is_not_split_by_heartbeats,
    send_file_keeps_the_blocking_mode,
    send_file_ignores_mode_change_of_other_thread,
    send_file_needs_three_system_calls,
    send_file_to_closed_peer_raises_no_sigpipe,
    send_file_keeps_pending_sigpipe_of_program,
    send_file_of_other_descriptor_fails,
    send_file_of_proc_file_succeeds,
    send_file_of_changing_file_returns_the_sent_bytes,
    send_file_after_shutdown_write_fails,
];

fn file_of(bytes: &[u8]) -> File {
    let mut file = system::blank_file(0);
    file.write_all(bytes).unwrap();
    file
}

/// Reads to the end of the stream.
fn read_all<A: Api>(client: &A::Client) -> Vec<u8> {
    let (mut all, mut buf) = (Vec::new(), vec![0; 1 << 16]);
    loop {
        match client.read(&mut buf).unwrap() {
            0 => return all,
            n => all.extend_from_slice(&buf[..n]),
        }
    }
}

/// Sends, shuts down, and compares: with a wait in the kernel, with poll, with a timeout.
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

/// I5, O1: offsets and sizes of files have 64 bits, also on 32-bit systems.
fn send_file_beyond_32_bits_sends_the_requested_part<A: Api>() {
    // Memory holds only the bytes that were written.
    let mut file = system::blank_file(6 << 30);
    for offset in [(2 << 30) - 2, (4 << 30) - 2, 5 << 30] {
        file.seek(std::io::SeekFrom::Start(offset)).unwrap();
        file.write_all(b"part").unwrap();
        sends::<A>(Transport::Tcp, &file, offset, 4, b"part");
        sends::<A>(Transport::Unix, &file, offset, 4, b"part");
    }
    sends::<A>(Transport::Tcp, &file, (6 << 30) - 3, u64::MAX, &[0; 3]);
}

/// I5: 0, 1 and millions of bytes, from an offset, and beyond the end of the file.
fn send_file_sends_the_requested_part<A: Api>() {
    const LEN: usize = 5_000_017;
    let all = bytes(LEN);
    let mut file = file_of(&all);
    file.seek(SeekFrom::Start(7)).unwrap();
    for transport in TRANSPORTS {
        let mut check = |offset: usize, len: u64, expected: &[u8]| {
            sends::<A>(transport, &file, offset as u64, len, expected);
            // Windows moves the position.
            let position = file.stream_position().unwrap();
            assert!(position == 7 || cfg!(windows), "the file's own position: {position}");
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
    // A file on a disk.
    let dir = TempDir::new();
    std::fs::write(dir.path("file"), &all).unwrap();
    sends::<A>(Transport::Tcp, &File::open(dir.path("file")).unwrap(), 5, u64::MAX, &all[5..]);
}

/// I5: in a process that may not read files at an offset, the kernel copies the bytes.
fn send_file_copies_in_the_kernel<A: Api>() {
    process::in_process(
        &test_name!(A, "send_file_copies_in_the_kernel"),
        Duration::from_secs(20),
        || {
            let all = bytes(1 << 20);
            let file = file_of(&all);
            limits::forbid(libc::SYS_pread64, None, libc::EIO);
            for transport in TRANSPORTS {
                sends::<A>(transport, &file, 0, u64::MAX, &all);
            }
        },
    );
}

/// I1: one timeout covers the whole call, however many parts it sends. The error reports the
/// progress.
fn send_file_to_slow_reader_times_out<A: Api>() {
    const LIMIT: Duration = Duration::from_millis(1000);
    let file = system::blank_file(MORE_THAN_FITS as u64);
    let send = |transport| {
        let p = small_pair::<A>(transport);
        p.client.set_write_timeout(1000).unwrap();
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let slow = scope.spawn(|| {
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
            assert!(took < LIMIT * 20, "{took:?}");
            assert_eq!(slow.join().unwrap(), failure.transferred);
            failure.transferred
        })
    };
    for transport in TRANSPORTS {
        // On a busy machine the peer may read little in time.
        assert!((0..10).any(|_| send(transport) > 100_000), "{transport:?}");
    }
}

/// I1: signals do not end a send_file.
fn send_file_interrupted_by_signals_continues<A: Api>() {
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
            assert_eq!(with_signals(pest, send, then).unwrap(), LEN as u64);
        }
    }
}

/// T2: bytes of another thread's write do not split a file.
fn send_file_is_not_split_by_writes<A: Api>() {
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

/// K5: a heartbeat does not split a file, and is not sent after a part of a file.
fn send_file_is_not_split_by_heartbeats<A: Api>() {
    let bytes = vec![b'f'; 4 << 20];
    let file = file_of(&bytes);
    heartbeats_wait_for_the_end_of::<A>(&bytes, |client| {
        client.send_file(file.as_raw_fd(), 0, u64::MAX).unwrap();
    });

    let options = [Opt::Heartbeat(PING, 20), Opt::CloseTimeout(0)];
    let (client, mut peer) = with_raw_peer::<A>(&options);
    client.set_nonblocking(true).unwrap();
    let blank = system::blank_file(MORE_THAN_FITS as u64);
    let outcome = client.send_file(blank.as_raw_fd(), 0, u64::MAX);
    let mut got = vec![0; fails(outcome, ErrorKind::WouldBlock).transferred];
    peer.read_exact(&mut got).unwrap();
    thread::sleep(Duration::from_millis(40));
    client.check_liveness().unwrap();
    // The test sends the rest of the file, so that it is complete.
    let from = MORE_THAN_FITS as u64 - 100;
    assert_eq!(client.send_file(blank.as_raw_fd(), from, u64::MAX).unwrap(), 100);
    got.resize(100, 1);
    peer.read_exact(&mut got).unwrap();
    assert!(got.iter().all(|b| *b == 0), "a heartbeat split the file");
    thread::sleep(Duration::from_millis(40));
    client.check_liveness().unwrap();
    got.resize(PING.len(), 0);
    peer.read_exact(&mut got).unwrap();
    assert_eq!(got, PING);
}

/// T4: the blocking mode of the descriptor is unchanged, and a concurrent read of another thread
/// waits as configured.
fn send_file_keeps_the_blocking_mode<A: Api>() {
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
                // In the middle of the send_file.
                assert!(system::is_nonblocking(fd));
                let (tell, told) = mpsc::channel();
                let client = &p.client;
                let late = scope.spawn(move || {
                    tell.send(system::thread_id()).unwrap();
                    client.read(&mut [0; 8])
                });
                let reader = told.recv_timeout(Duration::from_secs(60)).unwrap();
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

/// I5: a call blocks SIGPIPE, sends, and restores the mask. In a thread that has SIGPIPE blocked it
/// does not restore the mask. A socket with a token or a timeout needs no more system calls.
fn send_file_needs_three_system_calls<A: Api>() {
    process::in_process(
        &test_name!(A, "send_file_needs_three_system_calls"),
        Duration::from_secs(60),
        || {
            use crate::support::libc::{
                SYS_fcntl, SYS_ioctl, SYS_rt_sigpending, SYS_rt_sigprocmask,
            };
            let file = system::blank_file(1000);
            let token = A::token();
            let calls =
                [SYS_fcntl, SYS_ioctl, SYS_rt_sigpending, SYS_rt_sigprocmask, system::SENDFILE];
            let calls = limits::count_calls_of(&calls);
            for expected in [3, 2] {
                for way in 0..3 {
                    let p = pair::<A>(Transport::Tcp);
                    match way {
                        0 => {}
                        1 => p.client.set_cancel(Some(&token)),
                        _ => p.client.set_write_timeout(20_000).unwrap(),
                    }
                    let send = || p.client.send_file(file.as_raw_fd(), 0, 1000).unwrap();
                    send();
                    let before = calls.load(Ordering::Acquire);
                    for _ in 0..10 {
                        assert_eq!(send(), 1000);
                    }
                    let made = calls.load(Ordering::Acquire) - before;
                    assert_eq!(made, 10 * expected, "way {way}");
                    // A read waits in the kernel, in the blocking mode.
                    p.accepted.write_all(b"x").unwrap();
                    assert_eq!(p.client.read(&mut [0; 8]).unwrap(), 1);
                    // The program gets a descriptor in blocking mode, and it stays so.
                    send();
                    let fd = p.client.fd().unwrap();
                    assert!(!system::is_nonblocking(fd));
                    send();
                    assert!(!system::is_nonblocking(fd));
                }
                system::block_signal(libc::SIGPIPE, true);
            }
        },
    );
}

/// T4: a mode change by another thread does not affect a send_file in progress.
fn send_file_ignores_mode_change_of_other_thread<A: Api>() {
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
                // The send_file continues, and waits again.
                p.accepted.read_exact(&mut vec![0; 1 << 18]).unwrap();
                assert!(system::is_nonblocking(fd));
                token.fire();
            },
        );
        fails(outcome, ErrorKind::Cancelled);
        assert!(!system::is_nonblocking(fd));
    }
}

/// I2: SIGPIPE, which would kill this process, is neither raised nor left pending.
fn send_file_to_closed_peer_raises_no_sigpipe<A: Api>() {
    process::in_process(
        &test_name!(A, "send_file_to_closed_peer_raises_no_sigpipe"),
        Duration::from_secs(20),
        || {
            let file = system::blank_file(MORE_THAN_FITS as u64);
            // The Rust runtime ignores the signal. C programs do not.
            system::set_disposition(libc::SIGPIPE, libc::SIG_DFL);
            for transport in TRANSPORTS {
                for limit in [INFINITE, 20_000] {
                    let p = pair::<A>(transport);
                    p.client.set_write_timeout(limit).unwrap();
                    // An abort causes a reset on both transports.
                    p.accepted.abort();
                    let failed = || p.client.send_file(file.as_raw_fd(), 0, u64::MAX);
                    fails(failed(), ErrorKind::Reset);
                    fails(failed(), ErrorKind::Reset);
                    assert!(!system::is_pending(libc::SIGPIPE));
                    assert!(!system::block_signal(libc::SIGPIPE, false), "SIGPIPE stayed blocked");

                    // While the call is in progress.
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
            // The control case: without protection the signal kills the process. Only a child can
            // show that.
            assert!(system::dies_of_sigpipe());
        },
    );
}

/// I2: a SIGPIPE that the program has blocked, and that is pending, stays pending.
fn send_file_keeps_pending_sigpipe_of_program<A: Api>() {
    process::in_process(
        &test_name!(A, "send_file_keeps_pending_sigpipe_of_program"),
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
            assert!(!system::is_pending(libc::SIGPIPE), "the library's signal is pending");
            assert!(system::block_signal(libc::SIGPIPE, true), "SIGPIPE is no longer blocked");
            system::raise(libc::SIGPIPE);
            closed();
            assert!(system::is_pending(libc::SIGPIPE), "the program's signal is not pending");
        },
    );
}

/// E1: a descriptor that is not a regular file fails with a clear error, and the connection remains
/// usable.
fn send_file_of_other_descriptor_fails<A: Api>() {
    let (reader, _writer) = system::pipe();
    let directory = File::open("/").unwrap();
    let written = File::create("/dev/null").unwrap();
    let p = pair::<A>(Transport::Tcp);
    for (fd, why) in [
        (reader.as_raw_fd(), "the file is a pipe or a socket"),
        (p.client.fd().unwrap(), "the file is a pipe or a socket"),
        (directory.as_raw_fd(), "the file is a directory"),
        (written.as_raw_fd(), "not open for reading"),
        (i32::MAX as RawFd, ""),
    ] {
        // No bytes, and an offset at which no file has a byte.
        for (offset, len) in [(0, 10), (0, 0), (5, 0), (i64::MAX as u64, 5)] {
            let sent = p.client.send_file(fd, offset, len);
            let failure = fails(sent, ErrorKind::InvalidArgument);
            assert!(failure.message.contains(why), "{offset}, {len}: {failure:?}");
            assert_eq!(failure.transferred, 0);
        }
    }
    let zero = File::open("/dev/zero").unwrap();
    for offset in [0, 5] {
        let sent = p.client.send_file(zero.as_raw_fd(), offset, u64::MAX);
        let failure = fails(sent, ErrorKind::InvalidArgument);
        assert!(failure.message.contains("pass the number of bytes"), "{failure:?}");
    }
    assert_eq!(p.client.send_file(zero.as_raw_fd(), 0, 3).unwrap(), 3);
    p.accepted.read_exact(&mut [1; 3]).unwrap();
    p.client.write_all(b"all the same\n").unwrap();
    assert_eq!(p.accepted.read_line(64).unwrap(), "all the same");
}

/// I5: a file that becomes shorter during the call ends it, and the call returns the number of sent
/// bytes. A file that grows is sent up to its new end, or up to the requested length.
fn send_file_of_changing_file_returns_the_sent_bytes<A: Api>() {
    const LEN: usize = MORE_THAN_FITS;
    let shorter: fn(&File) = |file| file.set_len(1).unwrap();
    let longer: fn(&File) = |file| file.set_len(LEN as u64 + 100_000).unwrap();
    for transport in TRANSPORTS {
        for timeout in [INFINITE, 60_000] {
            for (change, len, expected) in [
                (shorter, u64::MAX, None),
                (shorter, LEN as u64, None),
                (longer, LEN as u64, Some(LEN)),
                (longer, u64::MAX, Some(LEN + 100_000)),
            ] {
                let p = small_pair::<A>(transport);
                p.client.set_write_timeout(timeout).unwrap();
                let file = system::blank_file(LEN as u64);
                thread::scope(|scope| {
                    let send = scope.spawn(|| {
                        let sent = p.client.send_file(file.as_raw_fd(), 0, len);
                        p.client.shutdown_write().unwrap();
                        sent.unwrap() as usize
                    });
                    // The call waits for the peer, which has read one byte.
                    p.accepted.read_exact(&mut [0]).unwrap();
                    change(&file);
                    let got = 1 + read_all::<A>(&p.accepted).len();
                    let sent = send.join().unwrap();
                    assert_eq!(got, sent, "{transport:?}, {timeout}, {len}");
                    assert_eq!(sent, expected.unwrap_or(sent));
                    assert!(expected.is_some() || sent < LEN, "{sent}");
                });
            }
        }
    }
}

/// I5: files that sendfile(2) does not support are read and sent.
fn send_file_of_proc_file_succeeds<A: Api>() {
    // A file of /proc, which has no pages.
    let status = File::open("/proc/self/limits").unwrap();
    for transport in TRANSPORTS {
        let p = pair::<A>(transport);
        let sent = p.client.send_file(status.as_raw_fd(), 0, u64::MAX).unwrap();
        p.client.shutdown_write().unwrap();
        let got = String::from_utf8(read_all::<A>(&p.accepted)).unwrap();
        assert_eq!(got.len() as u64, sent);
        assert!(got.starts_with("Limit "), "{got}");
    }
    process::in_process(
        &test_name!(A, "send_file_of_proc_file_succeeds"),
        Duration::from_secs(20),
        || {
            let all = bytes(1_000_003);
            let file = file_of(&all);
            limits::forbid(system::SENDFILE, None, libc::ENOSYS);
            for transport in TRANSPORTS {
                sends::<A>(transport, &file, 3, u64::MAX, &all[3..]);
            }
            // Also with the timeout of the call.
            let p = small_pair::<A>(Transport::Unix);
            p.client.set_write_timeout(200).unwrap();
            let file = system::blank_file(MORE_THAN_FITS as u64);
            let outcome = p.client.send_file(file.as_raw_fd(), 0, u64::MAX);
            assert!(fails(outcome, ErrorKind::TimedOut).transferred > 0);
        },
    );
}

/// I5: no file is sent on a connection whose sending side is shut down.
fn send_file_after_shutdown_write_fails<A: Api>() {
    let file = file_of(b"x");
    let p = pair::<A>(Transport::Tcp);
    p.client.shutdown_write().unwrap();
    fails(p.client.send_file(file.as_raw_fd(), 0, 1), ErrorKind::WrongState);
    p.client.close().unwrap();
    fails(p.client.send_file(file.as_raw_fd(), 0, 1), ErrorKind::Closed);
}
