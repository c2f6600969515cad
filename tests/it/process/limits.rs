//! Descriptor numbers, limits, a missing /proc, and system calls that a sandbox denies.

#![allow(unsafe_code)] // dup2(2), setrlimit(2), chroot(2)

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;

use crate::support::handshake::Handshakes;
use crate::support::process;
use crate::support::system::{self, Forked, RECVMMSG};
use crate::support::{
    Client, Connection, Datagrams, INFINITE, On, Opt, Outcome, PendingConnect, Reconnect, Server,
    Service, TempDir, Token, Transport, fails, limits, pair_with, somewhere, while_waiting,
};
use keepsock::{CloseReason, ErrorKind};

both_apis_alone![
    descriptors_of_closed_streams_are_sockets,
    descriptors_above_8192_work,
    calls_below_a_lowered_limit_work,
    calls_in_an_empty_chroot_work,
    calls_with_a_denied_system_call_work_or_fail_clearly,
];

/// Uses each kind of object, with each kind of wait. Returns the first failure.
fn use_everything<A: Handshakes>() -> Outcome<()> {
    let token = A::try_token()?;
    for transport in [Transport::Tcp, Transport::Unix] {
        let (endpoint, _dir) = somewhere(transport);
        let server = A::listen(&endpoint, &[Opt::CloseTimeout(20_000)])?;
        let mut pending = A::start(&server.endpoint(), &[Opt::CloseTimeout(20_000)])?;
        pending.fd()?;
        let client = pending.wait()?;
        let accepted = server.accept()?;
        // The kernel's timer, poll, and poll with a token.
        for (timeout, with_token) in [(INFINITE, false), (20_000, false), (INFINITE, true)] {
            client.set_read_timeout(timeout)?;
            client.set_cancel(with_token.then_some(&token));
            let (line, _) =
                while_waiting(|| client.read_line(8), || drop(accepted.write_all(b"line\n")));
            assert_eq!(line?, "line");
        }
        drop(client);
        assert_eq!(accepted.wait_hangup(20_000)?, CloseReason::PeerClosed);
    }
    let server = A::listen_all(&["127.0.0.1:0", "127.0.0.1:0"], &[Opt::CloseTimeout(0)])?;
    let data = |c: &A::Connection, data: &[u8]| drop(c.send(data));
    let service =
        server.serve_events(&[], On::<A> { data: Some(Box::new(data)), ..On::default() })?;
    let mut reconnect = A::reconnect(&server.endpoint(), &[Opt::ReadTimeout(20_000)])?;
    reconnect.set_limit(20_000)?;
    let client = reconnect.connect()?;
    client.write_all(b"ping")?;
    let mut buf = [0; 4];
    client.read_exact(&mut buf)?;
    assert_eq!(&buf, b"ping");
    drop(client);
    service.drain(20_000)?;
    let server = A::listen("127.0.0.1:0", &[])?;
    let service = server.serve(&[], Box::new(|c| drop(c.write_all(b"hello\n"))))?;
    let client = A::connect(&server.endpoint(), &[Opt::ReadTimeout(20_000)])?;
    assert_eq!(client.read_line(8)?, "hello");
    service.drain(20_000)?;
    let sockets = [0, 1].map(|_| A::Datagram::bind("127.0.0.1:0", &[Opt::ReadTimeout(20_000)]));
    let [one, other] = sockets;
    let (one, other) = (one?, other?);
    let to = other.five_tuple().local;
    let to = format!("{}:{}", to.0, to.1).parse().unwrap();
    one.send_batch(&[(b"1", Some(to)), (b"2", Some(to))])?;
    assert_eq!(other.recv_batch(&[8])?[0].bytes, b"1");
    assert_eq!(other.recv(8)?.bytes, b"2");
    Ok(())
}

/// T4: after a program has closed its standard streams, the kernel assigns their numbers to sockets.
fn descriptors_of_closed_streams_are_sockets<A: Handshakes>() {
    let numbers = system::without_streams(|| {
        let p = pair_with::<A>(Transport::Tcp, &[Opt::CloseTimeout(0)]);
        let numbers = [p.server.fd(), p.client.fd(), p.accepted.fd()].map(Result::unwrap);
        p.client.write_all(b"x\n").unwrap();
        assert_eq!(p.accepted.read_line(8).unwrap(), "x");
        drop(p);
        use_everything::<A>().unwrap();
        numbers
    });
    assert_eq!(numbers, [0, 1, 2]);
}

/// T4: select(2) cannot use such numbers. Each wait of the library can.
fn descriptors_above_8192_work<A: Handshakes>() {
    const LAST: i32 = 8_192;
    // The background closer uses no descriptor of the last quarter.
    limits::need_descriptors(2 * LAST as u64);
    let null = std::fs::File::open("/dev/null").unwrap();
    for number in null.as_raw_fd() + 1..=LAST {
        if !system::is_open(number) {
            // SAFETY: the number is free, and this process has no other thread that opens files.
            assert_eq!(unsafe { libc::dup2(null.as_raw_fd(), number) }, number);
        }
    }
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    assert!(server.fd().unwrap() > LAST);
    use_everything::<A>().unwrap();
}

fn set_limit(soft: u64) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes and reads one rlimit.
    unsafe {
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit), 0);
        limit.rlim_cur = soft as libc::rlim_t;
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit), 0);
    }
}

/// E1, T4: objects whose descriptors are above a limit that the program lowers keep working. A call that
/// needs a new descriptor, or polls more descriptors than the limit, reports the limit.
fn calls_below_a_lowered_limit_work<A: Handshakes>() {
    let token = A::token();
    let p = pair_with::<A>(Transport::Tcp, &[Opt::CloseTimeout(0), Opt::Cancel(&token)]);
    let q = pair_with::<A>(Transport::Tcp, &[Opt::CloseTimeout(0)]);
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    let endpoint = server.endpoint();
    let data = |c: &A::Connection, data: &[u8]| drop(c.send(data));
    let on = On::<A> { data: Some(Box::new(data)), ..On::default() };
    let service = server.serve_events(&[], on).unwrap();
    let served = A::connect(&server.endpoint(), &[Opt::CloseTimeout(0)]).unwrap();
    served.write_all(b"a").unwrap();
    served.read_exact(&mut [0; 1]).unwrap();
    for limit in [3, 1, 0] {
        set_limit(limit);
        for (pair, descriptors) in [(&p, 2), (&q, 1)] {
            let client = &pair.client;
            client.set_read_timeout(INFINITE).unwrap();
            pair.accepted.write_all(b"line\n").unwrap();
            // poll(2): EINVAL if its list has more descriptors than the limit.
            let polls = if limit >= descriptors { None } else { Some(ErrorKind::NoDescriptors) };
            match client.read_line(8) {
                Ok(line) => assert_eq!(line, "line"),
                Err(failure) => {
                    assert!(polls.is_some_and(|kind| failure.is(kind)), "{limit}: {failure:?}");
                    set_limit(descriptors);
                    assert_eq!(client.read_line(8).unwrap(), "line");
                    set_limit(limit);
                }
            }
            client.set_read_timeout(10).unwrap();
            fails(client.read(&mut [0; 8]), polls.unwrap_or(ErrorKind::TimedOut));
        }
        served.write_all(b"b").unwrap();
        served.read_exact(&mut [0; 1]).unwrap();
        fails(A::connect(&endpoint, &[]), ErrorKind::NoDescriptors);
    }
    set_limit(256);
    token.fire();
    fails(p.client.read(&mut [0; 8]), ErrorKind::Cancelled);
    use_everything::<A>().unwrap();
    service.drain(20_000).unwrap();
}

/// C1, E1: a process in an empty directory has neither /proc nor /etc.
fn calls_in_an_empty_chroot_work<A: Handshakes>() {
    if !system::is_root() {
        process::cannot("only root can call chroot(2)");
    }
    let dir = TempDir::new();
    let tmp = dir.path("tmp");
    std::fs::create_dir(&tmp).unwrap();
    // Reads the files that the test itself needs.
    use_everything_without_proc::<A>();
    let root = std::ffi::CString::new(dir.path("").into_os_string().into_encoded_bytes()).unwrap();
    assert!(Forked::run(|| {
        // SAFETY: the kernel reads one string.
        unsafe {
            assert_eq!(libc::chroot(root.as_ptr()), 0);
            assert_eq!(libc::chdir(c"/".as_ptr()), 0);
        }
        system::set_variable("TMPDIR", "/tmp");
        use_everything_without_proc::<A>();
    }));
}

fn use_everything_without_proc<A: Handshakes>() {
    let (endpoint, _dir) = somewhere(Transport::Unix);
    for endpoint in [endpoint.as_str(), "127.0.0.1:0", "*:0"] {
        let server = A::listen(endpoint, &[]).unwrap();
        let data = |c: &A::Connection, data: &[u8]| drop(c.send(data));
        let on = On::<A> { data: Some(Box::new(data)), ..On::default() };
        let service = server.serve_events(&[], on).unwrap();
        let endpoint = server.endpoint().replace("*", "127.0.0.1");
        let client = A::connect(&endpoint, &[Opt::ReadTimeout(20_000)]).unwrap();
        client.write_all(b"ping").unwrap();
        client.read_exact(&mut [0; 4]).unwrap();
        drop(client);
        service.drain(20_000).unwrap();
    }
    // Without /etc the name may be unknown. The call returns nevertheless.
    A::connect("localhost:1", &[Opt::ConnectTimeout(20_000)]).err().unwrap();
}

/// E1, E4: a sandbox denies one system call, as forbidden or as unknown. Each call of the library works
/// without it, or fails with the number of that error.
fn calls_with_a_denied_system_call_work_or_fail_clearly<A: Handshakes>() {
    use libc::*;
    let calls = [
        ("epoll_create1", SYS_epoll_create1),
        ("epoll_ctl", SYS_epoll_ctl),
        ("eventfd2", SYS_eventfd2),
        ("timerfd_create", SYS_timerfd_create),
        ("timerfd_settime", SYS_timerfd_settime),
        ("sendmmsg", SYS_sendmmsg),
        ("recvmmsg", RECVMMSG),
        ("recvmsg", SYS_recvmsg),
        ("sendmsg", SYS_sendmsg),
        ("getsockname", SYS_getsockname),
        ("fcntl", SYS_fcntl),
        ("ioctl", SYS_ioctl),
        ("setsockopt", SYS_setsockopt),
        ("getsockopt", SYS_getsockopt),
        ("socketpair", SYS_socketpair),
        ("statx", SYS_statx),
        ("flock", SYS_flock),
        ("getrandom", SYS_getrandom),
        ("prlimit64", SYS_prlimit64),
        ("madvise", SYS_madvise),
        ("sched_getaffinity", SYS_sched_getaffinity),
    ];
    let mut worked = BTreeSet::new();
    for ((name, call), denied) in calls.into_iter().flat_map(|call| [(call, EPERM), (call, ENOSYS)])
    {
        let (outcome, told) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(Forked::run(|| {
            limits::forbid(call, None, denied);
            match use_everything::<A>() {
                Ok(()) => (&told).write_all(b"worked").unwrap(),
                Err(failure) => assert_eq!(failure.os_error, denied, "{name}: {failure:?}"),
            }
        }));
        drop(told);
        let mut text = String::new();
        (&outcome).read_to_string(&mut text).unwrap();
        if text == "worked" {
            worked.insert((name, denied));
        }
    }
    let without =
        ["statx", "flock", "getrandom", "prlimit64", "madvise", "sched_getaffinity", "socketpair"];
    for (name, denied) in without.iter().flat_map(|name| [(*name, EPERM), (*name, ENOSYS)]) {
        assert!(worked.contains(&(name, denied)), "{name}: the library works without it: {denied}");
    }
    // Sandboxes and old kernels report these calls as unknown.
    for call in [SYS_clone3, SYS_accept4] {
        assert!(Forked::run(|| {
            limits::forbid(call, None, ENOSYS);
            use_everything::<A>().unwrap();
        }));
    }
}
