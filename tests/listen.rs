//! S2: many clients. L1: `*`. L3: errors of accept. L5: conflicts and Unix paths.
//! L6: what an accepted connection inherits.
#![cfg(target_os = "linux")]
// Generic functions are tests that Clippy does not know for such.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
// One function of libc is replaced here, to make accept fail.
#![allow(unsafe_code)]

mod common;

use std::cell::RefCell;
use std::collections::{HashSet, VecDeque};
use std::ffi::c_int;
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use common::{
    Api, Client, INFINITE, Opt, Server, TempDir, Transport, fails, pair_with, promptly, system,
    timed,
};
use keepsock::ErrorKind;

both_apis![
    any_number_of_clients_share_one_port,
    a_star_serves_both_families_on_one_port,
    a_wildcard_serves_its_own_family,
    transient_errors_are_retried_and_counted,
    fatal_errors_are_returned,
    running_out_is_waited_for,
    several_listeners_and_errors,
    a_client_that_resets_before_accept,
    an_accept_that_times_out,
    a_port_in_use,
    a_port_can_be_had_again_at_once,
    a_live_unix_socket_is_never_stolen,
    a_stale_unix_socket_is_reclaimed,
    no_other_file_is_touched,
    two_that_reclaim_at_once,
    the_file_goes_with_the_server,
    nothing_leaks_from_the_listener,
];

thread_local! {
    /// The errors that this thread's next accepts fail with.
    static ERRORS: RefCell<VecDeque<c_int>> = const { RefCell::new(VecDeque::new()) };
}

/// Stands in for libc's: the linker takes a program's own symbol first.
///
/// # Safety
/// As accept4(2).
#[unsafe(no_mangle)]
unsafe extern "C" fn accept4(
    fd: c_int,
    address: *mut libc::sockaddr,
    len: *mut libc::socklen_t,
    flags: c_int,
) -> c_int {
    match ERRORS.with_borrow_mut(VecDeque::pop_front) {
        Some(errno) => {
            system::set_errno(errno);
            -1
        }
        // SAFETY: the arguments are handed on.
        None => unsafe { libc::syscall(libc::SYS_accept4, fd, address, len, flags) as c_int },
    }
}

fn accepts_fail_with(errors: &[c_int]) {
    ERRORS.with_borrow_mut(|queue| queue.extend(errors));
}

/// S2: each accepted connection is a socket of its own, the server goes on listening,
/// and all share its port.
fn any_number_of_clients_share_one_port<A: Api>() {
    let server = A::listen("127.0.0.1:0", &[Opt::CloseTimeout(0)]).unwrap();
    let mut both: Vec<_> = (0..50)
        .map(|_| {
            let client = A::connect(&server.endpoint(), &[Opt::CloseTimeout(0)]).unwrap();
            (client, server.accept().unwrap())
        })
        .collect();
    let ports: HashSet<_> = both.iter().map(|(_, a)| a.five_tuple().local.1).collect();
    assert_eq!(ports, HashSet::from([server.port()]));
    let peers: HashSet<_> = both.iter().map(|(_, a)| a.five_tuple().remote.1).collect();
    assert_eq!(peers.len(), both.len());
    assert_eq!(server.counters().accepted, 50);
    // Closing some, and the server, leaves the others alone.
    both.truncate(25);
    server.close();
    for (i, (client, accepted)) in both.iter().enumerate() {
        accepted.write_all(format!("{i}\n").as_bytes()).unwrap();
        assert_eq!(client.read_line(64).unwrap(), i.to_string());
    }
}

/// L1: IPv4 and IPv6 on one port; an IPv4 peer prints as IPv4; port 0 gives one port,
/// readable at once.
fn a_star_serves_both_families_on_one_port<A: Api>() {
    let server = A::listen("*:0", &[]).unwrap();
    let port = server.port();
    assert_ne!(port, 0);
    assert_eq!(server.endpoint(), format!("*:{port}"));
    for (host, printed) in [("127.0.0.1", "127.0.0.1"), ("::1", "[::1]")] {
        let client = TcpStream::connect((host, port)).unwrap();
        let accepted = server.accept().unwrap();
        let t = accepted.five_tuple();
        assert_eq!(t.local, (host.to_owned(), port));
        assert_eq!(t.remote, (host.to_owned(), client.local_addr().unwrap().port()));
        let name = format!("tcp {printed}:{port} -> {printed}:{}", t.remote.1);
        assert_eq!(accepted.name(), name);
    }
}

/// L1: `0.0.0.0` is IPv4 only and `[::]` IPv6 only, so both can have one port.
fn a_wildcard_serves_its_own_family<A: Api>() {
    let six = A::listen("[::]:0", &[]).unwrap();
    let port = six.port();
    let four = A::listen(&format!("0.0.0.0:{port}"), &[]).unwrap();
    let _a = TcpStream::connect(("127.0.0.1", port)).unwrap();
    assert_eq!(four.accept().unwrap().five_tuple().remote.0, "127.0.0.1");
    let _b = TcpStream::connect(("::1", port)).unwrap();
    assert_eq!(six.accept().unwrap().five_tuple().remote.0, "::1");
    four.close();
    TcpStream::connect(("127.0.0.1", port)).unwrap_err();
}

/// L3: errors of single connections are passed over and counted.
fn transient_errors_are_retried_and_counted<A: Api>() {
    const TRANSIENT: [c_int; 11] = [
        libc::ECONNABORTED,
        libc::EINTR,
        libc::EPERM,
        libc::ENETDOWN,
        libc::EPROTO,
        libc::ENOPROTOOPT,
        libc::EHOSTDOWN,
        libc::ENONET,
        libc::EHOSTUNREACH,
        libc::EOPNOTSUPP,
        libc::ENETUNREACH,
    ];
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    for (i, errno) in TRANSIENT.into_iter().enumerate() {
        let _client = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
        accepts_fail_with(&[errno]);
        server.accept().unwrap_or_else(|e| panic!("errno {errno}: {e:?}"));
        assert_eq!(server.counters().retried, i as u64 + 1);
    }
    let _client = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
    accepts_fail_with(&TRANSIENT);
    server.accept().unwrap();
    assert_eq!(server.counters().retried, 22);
    assert_eq!(server.counters().accepted, 12);
    assert_eq!(server.counters().exhausted, 0);
}

/// L3: what does not pass by itself is returned, with the system's number.
fn fatal_errors_are_returned<A: Api>() {
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    for errno in [libc::EINVAL, libc::EBADF, libc::EFAULT, libc::ENOTSOCK] {
        accepts_fail_with(&[errno]);
        let failure = fails(server.accept(), ErrorKind::Os);
        assert_eq!(failure.os_error, errno);
        assert_eq!(failure.operation, "accept");
        assert_eq!(failure.endpoint, server.endpoint());
    }
    assert_eq!(server.counters().retried, 0);
}

/// L4: descriptors or memory that ran out are waited for, and counted; within a limit,
/// and not at all in non-blocking mode. (That no processor is used meanwhile, and that
/// accepting resumes, is tested with a table that is really full.)
fn running_out_is_waited_for<A: Api>() {
    const OUT: [c_int; 4] = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM];
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    let _client = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
    accepts_fail_with(&OUT);
    let (accepted, took) = timed(|| server.accept());
    accepted.unwrap();
    assert!(took >= Duration::from_millis(20), "four tries without a pause: {took:?}");
    assert_eq!(server.counters().exhausted, 4);
    // A limit holds.
    server.set_accept_timeout(50).unwrap();
    let _client = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
    accepts_fail_with(&[libc::EMFILE; 100]);
    let (outcome, took) = timed(|| server.accept());
    fails(outcome, ErrorKind::TimedOut);
    assert!(took >= Duration::from_millis(50) && took < Duration::from_secs(5), "{took:?}");
    ERRORS.with_borrow_mut(VecDeque::clear);
    // Non-blocking mode does not wait.
    server.set_nonblocking(true).unwrap();
    for errno in OUT {
        accepts_fail_with(&[errno]);
        let failure = server.accept().err().unwrap();
        assert!(
            failure.is(ErrorKind::NoDescriptors) || failure.is(ErrorKind::NoMemory),
            "{failure:?}"
        );
        assert_eq!(failure.os_error, errno);
    }
    server.accept().unwrap();
}

/// L2, L3, L4: with several listeners errors are what they are with one, and those of one
/// listener do not keep others waiting.
fn several_listeners_and_errors<A: Api>() {
    let server = A::listen_all(&["127.0.0.1:0", "127.0.0.1:0"], &[]).unwrap();
    let endpoints = server.endpoints();
    let connect = |at: usize| TcpStream::connect(&endpoints[at]).unwrap();
    let port = |outcome: common::Outcome<A::Client>| outcome.unwrap().five_tuple().local.1;
    let ports: Vec<_> =
        endpoints.iter().map(|e| e.rsplit(':').next().unwrap().parse::<u16>().unwrap()).collect();

    // Of one connection: passed over.
    let _client = connect(1);
    accepts_fail_with(&[libc::ECONNABORTED, libc::EPERM]);
    assert_eq!(port(server.accept()), ports[1]);
    assert_eq!(server.counters().retried, 2);
    // Used up: waited for, and the other one has its turn.
    let _clients = (connect(0), connect(1));
    accepts_fail_with(&[libc::EMFILE, libc::ENOMEM, libc::EMFILE]);
    let (outcome, took) = timed(|| server.accept());
    assert_eq!(port(outcome), ports[1]);
    assert!(took >= Duration::from_millis(15), "three tries without a pause: {took:?}");
    assert_eq!(server.counters().exhausted, 3);
    // Each try fails, as if the call were forbidden: that is waited for too.
    accepts_fail_with(&[libc::EPERM; 256]);
    assert_eq!(port(server.accept()), ports[0]);
    assert_eq!(server.counters().retried, 258);
    assert_eq!(server.counters().exhausted, 3);
    // Fatal: returned, with the endpoint that it is of. The other one is next.
    let _clients = (connect(0), connect(1));
    accepts_fail_with(&[libc::EINVAL]);
    let failure = fails(server.accept(), ErrorKind::Os);
    assert_eq!((failure.os_error, &failure.endpoint), (libc::EINVAL, &endpoints[1]));
    assert_eq!(port(server.accept()), ports[0]);
    // Non-blocking mode does not wait, and goes on with the other one.
    server.set_nonblocking(true).unwrap();
    accepts_fail_with(&[libc::EMFILE]);
    let failure = fails(server.accept(), ErrorKind::NoDescriptors);
    assert_eq!(failure.endpoint, endpoints[1]);
    assert_eq!(port(server.accept()), ports[1]);
    fails(server.accept(), ErrorKind::WouldBlock);
    // A limit holds.
    server.set_nonblocking(false).unwrap();
    server.set_accept_timeout(50).unwrap();
    let _client = connect(0);
    accepts_fail_with(&[libc::EMFILE; 100]);
    let (outcome, took) = timed(|| server.accept());
    fails(outcome, ErrorKind::TimedOut);
    assert!(took >= Duration::from_millis(50) && took < Duration::from_secs(5), "{took:?}");
    ERRORS.with_borrow_mut(VecDeque::clear);
    server.accept().unwrap();
}

/// L3, I4: Linux hands over a connection that was reset while it waited; its first
/// read tells.
fn a_client_that_resets_before_accept<A: Api>() {
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    let client = A::connect(&server.endpoint(), &[]).unwrap();
    client.abort();
    let accepted = server.accept().unwrap();
    fails(accepted.read(&mut [0; 8]), ErrorKind::Reset);
    assert_eq!(accepted.five_tuple().remote, client.five_tuple().local);
}

/// L6, T4: accept has a limit if it is told one, and none otherwise.
fn an_accept_that_times_out<A: Api>() {
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    server.set_accept_timeout(60).unwrap();
    promptly(Duration::from_millis(110), || {
        let (outcome, took) = timed(|| server.accept());
        let failure = fails(outcome, ErrorKind::TimedOut);
        assert!(took >= Duration::from_millis(60), "{took:?}");
        let text = format!("accept {}: timed out", server.endpoint());
        assert_eq!(failure.message, text);
        took
    });
    fails(server.set_accept_timeout(0), ErrorKind::InvalidArgument);
    server.set_accept_timeout(INFINITE).unwrap();
    let (outcome, _) = common::while_waiting(
        || server.accept(),
        || {
            std::thread::sleep(Duration::from_millis(80));
            TcpStream::connect(("127.0.0.1", server.port())).unwrap();
        },
    );
    outcome.unwrap();
}

/// L5: a conflict fails in listen, at once, and names the endpoint.
fn a_port_in_use<A: Api>() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = taken.local_addr().unwrap().to_string();
    promptly(Duration::from_millis(50), || {
        let (outcome, took) = timed(|| A::listen(&endpoint, &[]));
        let failure = fails(outcome, ErrorKind::AddressInUse);
        assert_eq!(failure.endpoint, endpoint);
        assert_eq!(failure.message, format!("listen {endpoint}: bind: address in use"));
        assert_eq!(failure.os_error, libc::EADDRINUSE);
        took
    });
    let first = A::listen("*:0", &[]).unwrap();
    let failure = fails(A::listen(&first.endpoint(), &[]), ErrorKind::AddressInUse);
    assert_eq!(failure.endpoint, first.endpoint());
    fails(A::listen("192.0.2.1:0", &[]), ErrorKind::AddressNotAvailable);
}

/// L5: connections in TIME-WAIT do not keep a server from starting again.
fn a_port_can_be_had_again_at_once<A: Api>() {
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    let endpoint = server.endpoint();
    let client = A::connect(&endpoint, &[]).unwrap();
    // The server's side closes first, so TIME-WAIT is on its port.
    server.accept().unwrap().close().unwrap();
    assert_eq!(client.read(&mut [0; 8]).unwrap(), 0);
    client.close().unwrap();
    server.close();
    A::listen(&endpoint, &[]).unwrap();
}

/// L5: a live Unix socket keeps its path, whoever serves it and full queue or not.
fn a_live_unix_socket_is_never_stolen<A: Api>() {
    let dir = TempDir::new();
    let endpoint = dir.endpoint("s");
    let first = A::listen(&endpoint, &[]).unwrap();
    let failure = fails(A::listen(&endpoint, &[]), ErrorKind::AddressInUse);
    assert_eq!(failure.endpoint, endpoint);
    first.set_nonblocking(true).unwrap();
    while let Ok(probe) = first.accept() {
        assert_eq!(probe.read(&mut [0; 8]).unwrap(), 0);
    }
    let _client = A::connect(&endpoint, &[]).unwrap();
    first.accept().unwrap();

    let full = A::listen(&dir.endpoint("full"), &[Opt::Backlog(1)]).unwrap();
    let connect = || A::connect(&full.endpoint(), &[Opt::ConnectTimeout(20)]);
    let _waiting: Vec<_> = std::iter::repeat_with(connect).map_while(Result::ok).collect();
    fails(A::listen(&full.endpoint(), &[]), ErrorKind::AddressInUse);

    let _stranger = UnixListener::bind(dir.path("stranger")).unwrap();
    fails(A::listen(&dir.endpoint("stranger"), &[]), ErrorKind::AddressInUse);
    let _datagrams = std::os::unix::net::UnixDatagram::bind(dir.path("datagram")).unwrap();
    fails(A::listen(&dir.endpoint("datagram"), &[]), ErrorKind::AddressInUse);
    UnixStream::connect(dir.path("stranger")).unwrap();
}

/// L5: a path whose server is gone is taken over.
fn a_stale_unix_socket_is_reclaimed<A: Api>() {
    let dir = TempDir::new();
    drop(UnixListener::bind(dir.path("s")).unwrap());
    assert!(dir.path("s").exists());
    let server = A::listen(&dir.endpoint("s"), &[]).unwrap();
    let _client = UnixStream::connect(dir.path("s")).unwrap();
    server.accept().unwrap();
}

/// L5: a file that is no socket is not ours to remove.
fn no_other_file_is_touched<A: Api>() {
    let dir = TempDir::new();
    std::fs::write(dir.path("file"), "precious").unwrap();
    std::os::unix::fs::symlink(dir.path("file"), dir.path("link")).unwrap();
    std::fs::create_dir(dir.path("dir")).unwrap();
    for name in ["file", "link", "dir"] {
        fails(A::listen(&dir.endpoint(name), &[]), ErrorKind::AddressInUse);
    }
    assert_eq!(std::fs::read(dir.path("link")).unwrap(), b"precious");
    assert!(dir.path("dir").exists());
    let failure = fails(A::listen(&dir.endpoint("none/s"), &[]), ErrorKind::NotFound);
    assert_eq!(failure.endpoint, dir.endpoint("none/s"));
}

/// L5: of several that find a stale path at once, exactly one has it, and it is live.
fn two_that_reclaim_at_once<A: Api>() {
    let dir = TempDir::new();
    for round in 0..6 {
        let name = format!("s{round}");
        drop(UnixListener::bind(dir.path(&name)).unwrap());
        let endpoint = dir.endpoint(&name);
        let start = std::sync::Barrier::new(3);
        let outcomes: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..3)
                .map(|_| {
                    scope.spawn(|| {
                        start.wait();
                        A::listen(&endpoint, &[])
                    })
                })
                .collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        let (won, lost): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(Result::is_ok);
        assert_eq!(won.len(), 1);
        lost.into_iter().for_each(|l| drop(fails(l, ErrorKind::AddressInUse)));
        UnixStream::connect(dir.path(&name)).unwrap();
    }
}

/// L5: the file goes when the server closes, unless another has taken its place.
fn the_file_goes_with_the_server<A: Api>() {
    let dir = TempDir::new();
    let server = A::listen(&dir.endpoint("s"), &[]).unwrap();
    server.close();
    assert!(!dir.path("s").exists());
    server.close();
    drop(server);
    drop(A::listen(&dir.endpoint("s"), &[]).unwrap());
    assert!(!dir.path("s").exists());
    // Removed by hand, and taken by somebody else.
    let first = A::listen(&dir.endpoint("s"), &[]).unwrap();
    std::fs::remove_file(dir.path("s")).unwrap();
    let _second = UnixListener::bind(dir.path("s")).unwrap();
    first.close();
    UnixStream::connect(dir.path("s")).unwrap();
}

/// L6: an accepted connection closes on exec and waits; of the listener's limits and
/// of its non-blocking mode it has nothing.
fn nothing_leaks_from_the_listener<A: Api>() {
    for transport in common::TRANSPORTS {
        let p = pair_with::<A>(transport, &[Opt::CloseTimeout(0)]);
        p.server.set_accept_timeout(100).unwrap();
        p.server.set_nonblocking(true).unwrap();
        assert!(system::is_cloexec(p.server.fd().unwrap()));
        for name in [libc::SO_RCVTIMEO, libc::SO_SNDTIMEO] {
            assert_eq!(system::timeout_option(p.server.fd().unwrap(), name), Duration::ZERO);
        }
        let _client = A::connect(&p.server.endpoint(), &[Opt::CloseTimeout(0)]).unwrap();
        let later = p.server.accept().unwrap();
        for accepted in [&p.accepted, &later] {
            let fd = accepted.fd().unwrap();
            assert!(system::is_cloexec(fd));
            assert!(!system::is_nonblocking(fd));
            assert_eq!(system::linger(fd), None);
            for name in [libc::SO_RCVTIMEO, libc::SO_SNDTIMEO] {
                assert_eq!(system::timeout_option(fd, name), Duration::ZERO);
            }
        }
        let (outcome, took) = common::while_waiting(
            || later.read(&mut [0; 8]),
            || {
                std::thread::sleep(Duration::from_millis(120));
                later.close().unwrap();
            },
        );
        fails(outcome, ErrorKind::Closed);
        assert!(took >= Duration::from_millis(120), "the accept timeout ended a read");
    }
    // What the options say of the connections holds for each.
    let options = [Opt::ReadTimeout(300), Opt::WriteTimeout(400), Opt::CloseTimeout(0)];
    let p = pair_with::<A>(Transport::Tcp, &options);
    let fd = p.accepted.fd().unwrap();
    let ms = Duration::from_millis;
    assert_eq!(round(system::timeout_option(fd, libc::SO_RCVTIMEO)), ms(300));
    assert_eq!(round(system::timeout_option(fd, libc::SO_SNDTIMEO)), ms(400));
    let listener = p.server.fd().unwrap();
    assert_eq!(system::timeout_option(listener, libc::SO_RCVTIMEO), Duration::ZERO);
}

/// The kernel counts in ticks and rounds up.
fn round(time: Duration) -> Duration {
    Duration::from_millis(time.as_millis() as u64 / 20 * 20)
}
