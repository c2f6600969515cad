//! S2: many clients. L1: `*`. L3: errors of accept. L5: conflicts and Unix paths. L6: attributes of
//! an accepted connection.
// This file replaces one function of libc, to make accept fail.
#![allow(unsafe_code)]

use crate::support::os::unix::net::{UnixListener, UnixStream};
use std::cell::RefCell;
use std::collections::{HashSet, VecDeque};
use std::ffi::c_int;
use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::support;
#[cfg(feature = "datagram")]
use crate::support::Datagrams as _;
use crate::support::{
    Api, Client, INFINITE, Opt, Server, TempDir, Transport, fails, pair_with, promptly, system,
    timed,
};
#[cfg(feature = "serve")]
use crate::support::{Connection, On, Service};
use crate::support::{limits, process};
use keepsock::ErrorKind;

both_apis![
    connections_of_many_clients_share_one_port,
    listen_on_wildcard_serves_both_families,
    listen_on_family_wildcard_serves_that_family,
    accept_error_transient_is_retried_and_counted,
    accept_error_fatal_is_returned,
    accept_without_accept4_has_the_same_result,
    accept_of_rejected_peers_keeps_its_timeout,
    accept_waits_when_out_of_descriptors_or_memory,
    accept_error_of_one_listener_does_not_delay_others,
    accept_of_reset_connection_reports_it_on_read,
    accept_with_timeout_times_out,
    listen_on_used_port_fails,
    listen_after_time_wait_succeeds,
    listen_on_live_unix_path_fails,
    listen_on_stale_unix_path_replaces_it,
    listen_on_stale_path_with_interrupted_lock_succeeds,
    listen_on_path_of_other_file_fails,
    listen_on_stale_path_concurrently_succeeds_once,
    listen_stale_paths_in_one_directory_all_succeed,
    listen_stale_path_in_a_sticky_directory_ignores_lock_files_of_others,
    listen_stale_path_in_a_write_only_directory,
    close_of_server_removes_its_file,
    accepted_connection_inherits_no_listener_settings,
    #[cfg(feature = "serve")] {
        service_accept_error_transient_continues,
    }
    #[cfg(feature = "datagram")] {
        listen_path_lock_held_names_the_lock,
        listen_path_of_a_bound_socket_is_in_use,
        listen_path_below_a_fifo_fails,
        listen_path_without_descriptors_leaves_no_file,
    }
];

/// The errors of the next accepts on a descriptor, in every thread.
static ERRORS_OF: Mutex<Vec<(c_int, VecDeque<c_int>)>> = Mutex::new(Vec::new());
/// Whether [`ERRORS_OF`] is in use. Otherwise accept4 takes no lock, because another test may fork
/// while the lock is held.
static HAS_ERRORS_OF: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// The errors of this thread's next accepts.
    static ERRORS: RefCell<VecDeque<c_int>> = const { RefCell::new(VecDeque::new()) };
}

/// Replaces libc's function: the linker uses a program's own symbol first.
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
    let of = || {
        if !HAS_ERRORS_OF.load(Ordering::Acquire) {
            return None;
        }
        let mut all = ERRORS_OF.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter_mut().find(|(of, _)| *of == fd).and_then(|(_, errors)| errors.pop_front())
    };
    // A function of atexit(3) has no thread-local values.
    let own = ERRORS.try_with(|queue| queue.borrow_mut().pop_front()).ok().flatten();
    match own.or_else(of) {
        Some(errno) => {
            system::set_errno(errno);
            -1
        }
        // SAFETY: the arguments are passed on.
        None => unsafe { libc::syscall(libc::SYS_accept4, fd, address, len, flags) as c_int },
    }
}

fn accepts_fail_with(errors: &[c_int]) {
    ERRORS.with_borrow_mut(|queue| queue.extend(errors));
}

/// Each error of accept(2) and the protocols that is neither fatal nor a lack of descriptors or
/// memory.
const TRANSIENT: [c_int; 19] = [
    libc::ECONNABORTED,
    libc::EINTR,
    libc::EPERM,
    libc::ENETDOWN,
    libc::EPROTO,
    libc::ENOPROTOOPT,
    libc::EHOSTDOWN,
    libc::ENONET,
    libc::EHOSTUNREACH,
    libc::ENETUNREACH,
    libc::ETIMEDOUT,
    libc::ENOSR,
    libc::ESOCKTNOSUPPORT,
    libc::EPROTONOSUPPORT,
    libc::ECONNRESET,
    libc::ECONNREFUSED,
    libc::EACCES,
    libc::EPIPE,
    libc::EIO,
];

const FATAL: [c_int; 5] =
    [libc::EINVAL, libc::EBADF, libc::EFAULT, libc::ENOTSOCK, libc::EOPNOTSUPP];

/// S2: each accepted connection has its own socket, the server continues to listen, and all share
/// its port.
fn connections_of_many_clients_share_one_port<A: Api>() {
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
    assert_eq!(server.stats().accepted, 50);
    // The other connections remain when some connections and the server close.
    both.truncate(25);
    server.close();
    for (i, (client, accepted)) in both.iter().enumerate() {
        accepted.write_all(format!("{i}\n").as_bytes()).unwrap();
        assert_eq!(client.read_line(64).unwrap(), i.to_string());
    }
}

/// L1: `*` listens on IPv4 and IPv6 with one port. An IPv4 peer prints as IPv4. Port 0 gives one
/// port, readable at once.
fn listen_on_wildcard_serves_both_families<A: Api>() {
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
fn listen_on_family_wildcard_serves_that_family<A: Api>() {
    // Another process may have the port for IPv4.
    let (six, four) = std::iter::repeat_with(|| {
        let six = A::listen("[::]:0", &[]).unwrap();
        let four = A::listen(&format!("0.0.0.0:{}", six.port()), &[]);
        four.map(|four| (six, four))
    })
    .take(1000)
    .find_map(Result::ok)
    .unwrap();
    let port = six.port();
    let _a = TcpStream::connect(("127.0.0.1", port)).unwrap();
    assert_eq!(four.accept().unwrap().five_tuple().remote.0, "127.0.0.1");
    let _b = TcpStream::connect(("::1", port)).unwrap();
    assert_eq!(six.accept().unwrap().five_tuple().remote.0, "::1");
    four.close();
    TcpStream::connect(("127.0.0.1", port)).unwrap_err();
}

/// L3: errors of single connections are skipped and counted.
fn accept_error_transient_is_retried_and_counted<A: Api>() {
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    for (i, errno) in TRANSIENT.into_iter().enumerate() {
        let _client = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
        accepts_fail_with(&[errno]);
        server.accept().unwrap_or_else(|e| panic!("errno {errno}: {e:?}"));
        assert_eq!(server.stats().retried, i as u64 + 1);
    }
    let _client = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
    accepts_fail_with(&TRANSIENT);
    server.accept().unwrap();
    assert_eq!(server.stats().retried, 2 * TRANSIENT.len() as u64);
    assert_eq!(server.stats().accepted, TRANSIENT.len() as u64 + 1);
    assert_eq!(server.stats().exhausted, 0);
    // A persistent error is retried after a pause. Non-blocking mode returns instead.
    let _client = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
    server.set_nonblocking(true).unwrap();
    accepts_fail_with(&[libc::ETIMEDOUT; 256]);
    let failure = fails(server.accept(), ErrorKind::WouldBlock);
    assert_eq!(failure.os_error, libc::ETIMEDOUT);
    server.accept().unwrap();
}

/// L3, E4: a transient error of accept never ends a service, whether it occurs once or persists.
#[cfg(feature = "serve")]
fn service_accept_error_transient_continues<A: Api>() {
    let echo = |client: &A::Client| {
        while let Ok(line) = client.read_line(64) {
            client.write_all(format!("{line}\n").as_bytes()).unwrap();
        }
    };
    for by_events in [false, true] {
        let server = A::listen("127.0.0.1:0", &[Opt::CloseTimeout(0)]).unwrap();
        let fd = server.fd().unwrap();
        ERRORS_OF.lock().unwrap().push((fd, VecDeque::new()));
        HAS_ERRORS_OF.store(true, Ordering::Release);
        let service = if by_events {
            let data = |c: &A::Connection, data: &[u8]| c.send(data).unwrap();
            server.serve_events(&[], On { data: Some(Box::new(data)), ..On::default() }).unwrap()
        } else {
            server.serve(&[], Box::new(echo)).unwrap()
        };
        let mut failed = 0;
        let once = TRANSIENT.map(|errno| vec![errno; 1]);
        let persistent = [libc::EPERM, libc::ETIMEDOUT].map(|errno| vec![errno; 600]);
        for errors in once.into_iter().chain(persistent) {
            failed += errors.len() as u64;
            let errno = errors[0];
            let mut all = ERRORS_OF.lock().unwrap();
            let of = all.iter_mut().find(|(of, _)| *of == fd).unwrap();
            of.1.extend(&errors);
            drop(all);
            // Workers that already wait in accept do not get the errors.
            for tried in 0.. {
                assert!(tried < 1000, "errno {errno}: {:?}", server.stats());
                let left = server.stats().retried < failed;
                let options = [Opt::CloseTimeout(0), Opt::ReadTimeout(60_000)];
                let client = A::connect(&server.endpoint(), &options).unwrap();
                client.write_all(b"hello\n").unwrap();
                let line = client.read_line(64);
                assert_eq!(line.unwrap_or_else(|e| panic!("errno {errno}: {e:?}")), "hello");
                if !left {
                    break;
                }
            }
        }
        assert_eq!(server.stats().retried, failed);
        assert_eq!(server.stats().exhausted, 0);
        fails(service.wait_stopped(0), ErrorKind::TimedOut);
        ERRORS_OF.lock().unwrap().retain(|(of, _)| *of != fd);
        drop(service);
    }
}

/// Makes connections of this user that close at once, as many as the listener queues.
fn queue_up(path: &Path, most: usize) -> usize {
    let connect = || UnixStream::connect(path).ok();
    std::iter::repeat_with(connect).map_while(|client| client).take(most).count()
}

/// I1, L3: rejected peers extend neither the accept timeout nor a non-blocking accept.
fn accept_of_rejected_peers_keeps_its_timeout<A: Api>() {
    // Fewer than the shortest queue of Linux, so that no connect waits.
    let somaxconn = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap();
    let most = somaxconn.trim().parse::<usize>().unwrap().min(3000);
    let dir = TempDir::new();
    let (one, other) = (dir.endpoint("one"), dir.endpoint("other"));
    // SAFETY: no memory is passed.
    let denied = [Opt::AllowUid(unsafe { libc::getuid() } + 1)];
    for server in [A::listen(&one, &denied).unwrap(), {
        A::listen_all(&[&dir.endpoint("several"), &other], &denied).unwrap()
    }] {
        let paths: Vec<_> = server
            .endpoints()
            .iter()
            .map(|e| e.strip_prefix("unix:").unwrap().to_owned())
            .collect();
        let queued: u64 = paths.iter().map(|path| queue_up(Path::new(path), most) as u64).sum();
        // The kernel and this program need far more than 0.3 µs per connection.
        server.set_accept_timeout(1).unwrap();
        fails(server.accept(), ErrorKind::TimedOut);
        let after_timeout = server.stats().denied;
        assert!(after_timeout < queued, "{after_timeout} of {queued}");
        server.set_nonblocking(true).unwrap();
        fails(server.accept(), ErrorKind::WouldBlock);
        let rejected = server.stats().denied - after_timeout;
        assert_eq!(rejected, (queued - after_timeout).min(64));
    }
}

/// L3: a permanent error is returned with the system's error number.
fn accept_error_fatal_is_returned<A: Api>() {
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    // Where a wait is a poll, accept(2) is called only if a connection is pending.
    let _client = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
    for errno in FATAL {
        accepts_fail_with(&[errno]);
        let unsupported = errno == libc::EOPNOTSUPP;
        let kind = if unsupported { ErrorKind::Unsupported } else { ErrorKind::Os };
        let failure = fails(server.accept(), kind);
        assert_eq!(failure.os_error, errno);
        assert_eq!(&*failure.operation, "accept");
        assert_eq!(failure.endpoint, server.endpoint());
    }
    assert_eq!(server.stats().retried, 0);
}

/// L3, L6: in a sandbox that does not know accept4(2), the older accept(2) is used. The descriptor is
/// close-on-exec, and the peer is known.
fn accept_without_accept4_has_the_same_result<A: Api>() {
    let dir = TempDir::new();
    for endpoint in ["127.0.0.1:0", "[::1]:0", &dir.endpoint("s")] {
        let server = A::listen(endpoint, &[]).unwrap();
        let client = A::connect(&server.endpoint(), &[]).unwrap();
        accepts_fail_with(&[libc::ENOSYS]);
        let accepted = server.accept().unwrap();
        assert!(system::is_cloexec(accepted.fd().unwrap()));
        assert_eq!(accepted.five_tuple().remote, client.five_tuple().local);
        let stats = server.stats();
        assert_eq!((stats.accepted, stats.retried), (1, 0));
        // The older call waits as well.
        server.set_accept_timeout(50).unwrap();
        accepts_fail_with(&[libc::ENOSYS]);
        fails(server.accept(), ErrorKind::TimedOut);
    }
}

/// L4: accept waits for descriptors and memory, and counts the wait. It waits within the timeout,
/// and not in non-blocking mode. Another test with a full table shows that the wait uses no
/// processor time and that accepting resumes.
fn accept_waits_when_out_of_descriptors_or_memory<A: Api>() {
    const OUT: [c_int; 4] = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM];
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    let _client = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
    accepts_fail_with(&OUT);
    let (accepted, took) = timed(|| server.accept());
    accepted.unwrap();
    assert!(took >= Duration::from_millis(20), "four tries without a pause: {took:?}");
    assert_eq!(server.stats().exhausted, 4);
    // The timeout applies.
    server.set_accept_timeout(50).unwrap();
    let _client = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
    accepts_fail_with(&[libc::EMFILE; 100]);
    let (outcome, took) = timed(|| server.accept());
    fails(outcome, ErrorKind::TimedOut);
    assert!(took >= Duration::from_millis(50) && took < Duration::from_secs(20), "{took:?}");
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

/// L2, L3, L4: with several listeners, errors are handled as with one listener, and the errors of
/// one listener do not delay the others.
fn accept_error_of_one_listener_does_not_delay_others<A: Api>() {
    let server = A::listen_all(&["127.0.0.1:0", "127.0.0.1:0"], &[]).unwrap();
    let endpoints = server.endpoints();
    let connect = |at: usize| TcpStream::connect(&endpoints[at]).unwrap();
    let port = |outcome: support::Outcome<A::Client>| outcome.unwrap().five_tuple().local.1;
    let ports: Vec<_> =
        endpoints.iter().map(|e| e.rsplit(':').next().unwrap().parse::<u16>().unwrap()).collect();

    // An error of one connection: skipped.
    let _client = connect(1);
    accepts_fail_with(&[libc::ECONNABORTED, libc::EPERM]);
    assert_eq!(port(server.accept()), ports[1]);
    assert_eq!(server.stats().retried, 2);
    // A lack of resources: accept waits, and the other listener is next.
    let _clients = (connect(0), connect(1));
    accepts_fail_with(&[libc::EMFILE, libc::ENOMEM, libc::EMFILE]);
    let (outcome, took) = timed(|| server.accept());
    assert_eq!(port(outcome), ports[1]);
    assert!(took >= Duration::from_millis(15), "three tries without a pause: {took:?}");
    assert_eq!(server.stats().exhausted, 3);
    // Each attempt fails, as if the call were forbidden: accept also waits.
    accepts_fail_with(&[libc::EPERM; 256]);
    assert_eq!(port(server.accept()), ports[0]);
    assert_eq!(server.stats().retried, 258);
    assert_eq!(server.stats().exhausted, 3);
    // A fatal error: returned with its endpoint. The other listener is next.
    let _clients = (connect(0), connect(1));
    accepts_fail_with(&[libc::EINVAL]);
    let failure = fails(server.accept(), ErrorKind::Os);
    assert_eq!((failure.os_error, &failure.endpoint), (libc::EINVAL, &endpoints[1]));
    assert_eq!(port(server.accept()), ports[0]);
    // Non-blocking mode does not wait, and continues with the other listener.
    server.set_nonblocking(true).unwrap();
    accepts_fail_with(&[libc::EMFILE]);
    let failure = fails(server.accept(), ErrorKind::NoDescriptors);
    assert_eq!(failure.endpoint, endpoints[1]);
    assert_eq!(port(server.accept()), ports[1]);
    fails(server.accept(), ErrorKind::WouldBlock);
    // The timeout applies.
    server.set_nonblocking(false).unwrap();
    server.set_accept_timeout(50).unwrap();
    let _client = connect(0);
    accepts_fail_with(&[libc::EMFILE; 100]);
    let (outcome, took) = timed(|| server.accept());
    fails(outcome, ErrorKind::TimedOut);
    assert!(took >= Duration::from_millis(50) && took < Duration::from_secs(20), "{took:?}");
    ERRORS.with_borrow_mut(VecDeque::clear);
    server.accept().unwrap();
}

/// L3, I4: Linux accepts a connection that was reset in the queue. Its first read reports the
/// reset.
fn accept_of_reset_connection_reports_it_on_read<A: Api>() {
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    let client = A::connect(&server.endpoint(), &[]).unwrap();
    client.abort();
    let accepted = server.accept().unwrap();
    fails(accepted.read(&mut [0; 8]), ErrorKind::Reset);
    assert_eq!(accepted.five_tuple().remote, client.five_tuple().local);
}

/// L6, T4: accept has a timeout only if one is set.
fn accept_with_timeout_times_out<A: Api>() {
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    server.set_accept_timeout(60).unwrap();
    promptly(Duration::from_millis(110), || {
        let (outcome, took) = timed(|| server.accept());
        let failure = fails(outcome, ErrorKind::TimedOut);
        assert!(took >= Duration::from_millis(60), "{took:?}");
        let text = format!("accept {}: timed out", server.endpoint());
        assert_eq!(*failure.message, *text);
        took
    });
    fails(server.set_accept_timeout(0), ErrorKind::InvalidArgument);
    server.set_accept_timeout(INFINITE).unwrap();
    let (outcome, _) = support::while_waiting(
        || server.accept(),
        || {
            std::thread::sleep(Duration::from_millis(80));
            TcpStream::connect(("127.0.0.1", server.port())).unwrap();
        },
    );
    outcome.unwrap();
}

/// L5: a conflict fails in listen, at once, and names the endpoint.
fn listen_on_used_port_fails<A: Api>() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = taken.local_addr().unwrap().to_string();
    promptly(Duration::from_millis(50), || {
        let (outcome, took) = timed(|| A::listen(&endpoint, &[]));
        let failure = fails(outcome, ErrorKind::AddressInUse);
        assert_eq!(failure.endpoint, endpoint);
        let text =
            format!("listen {endpoint}: bind: address in use: another socket is bound to it");
        assert!(failure.message.starts_with(&text), "{failure:?}");
        assert_eq!(failure.os_error, libc::EADDRINUSE);
        took
    });
    let first = A::listen("*:0", &[]).unwrap();
    let failure = fails(A::listen(&first.endpoint(), &[]), ErrorKind::AddressInUse);
    assert_eq!(failure.endpoint, first.endpoint());
    fails(A::listen("192.0.2.1:0", &[]), ErrorKind::AddressNotAvailable);
}

/// L5: connections in TIME-WAIT do not prevent a restart of the server.
fn listen_after_time_wait_succeeds<A: Api>() {
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    let endpoint = server.endpoint();
    let client = A::connect(&endpoint, &[]).unwrap();
    // The server's side closes first, so its port has a connection in TIME-WAIT.
    server.accept().unwrap().close().unwrap();
    assert_eq!(client.read(&mut [0; 8]).unwrap(), 0);
    client.close().unwrap();
    server.close();
    A::listen(&endpoint, &[]).unwrap();
}

/// L5: a live Unix socket keeps its path, whatever program serves it and whether its queue is full.
fn listen_on_live_unix_path_fails<A: Api>() {
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
    let _waiting = support::fill_queue(&dir.path("full"));
    fails(A::listen(&full.endpoint(), &[]), ErrorKind::AddressInUse);

    let _stranger = UnixListener::bind(dir.path("stranger")).unwrap();
    fails(A::listen(&dir.endpoint("stranger"), &[]), ErrorKind::AddressInUse);
    let _datagrams =
        crate::support::os::unix::net::UnixDatagram::bind(dir.path("datagram")).unwrap();
    fails(A::listen(&dir.endpoint("datagram"), &[]), ErrorKind::AddressInUse);
    UnixStream::connect(dir.path("stranger")).unwrap();
}

/// L5: a path whose server has exited is replaced.
fn listen_on_stale_unix_path_replaces_it<A: Api>() {
    let dir = TempDir::new();
    drop(UnixListener::bind(dir.path("s")).unwrap());
    assert!(dir.path("s").exists());
    let server = A::listen(&dir.endpoint("s"), &[]).unwrap();
    let _client = UnixStream::connect(dir.path("s")).unwrap();
    server.accept().unwrap();
}

/// L5: a signal interrupts flock(2), which a network file system permits.
fn listen_on_stale_path_with_interrupted_lock_succeeds<A: Api>() {
    let dir = TempDir::new();
    drop(UnixListener::bind(dir.path("s")).unwrap());
    std::thread::scope(|scope| {
        let listen = || {
            limits::answer(libc::SYS_flock, None, -i64::from(libc::EINTR), 3);
            A::listen(&dir.endpoint("s"), &[]).unwrap();
        };
        scope.spawn(listen).join().unwrap();
    });
}

/// L5: a file that is not a socket is not removed.
fn listen_on_path_of_other_file_fails<A: Api>() {
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

/// L5: exactly one of several concurrent listeners on a stale path gets it and is live.
fn listen_on_stale_path_concurrently_succeeds_once<A: Api>() {
    let dir = TempDir::new();
    for round in 0..100 {
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

/// Creates a socket file without a socket.
fn leave_stale(path: &Path) {
    drop(UnixListener::bind(path).unwrap());
}

fn names_in(dir: &Path) -> Vec<String> {
    let entry = |e: std::io::Result<std::fs::DirEntry>| e.unwrap().file_name();
    std::fs::read_dir(dir).unwrap().map(|e| entry(e).into_string().unwrap()).collect()
}

/// L5: stale paths in one directory are replaced without delay, even if another process holds a lock
/// on the directory, and no lock file remains.
fn listen_stale_paths_in_one_directory_all_succeed<A: Api>() {
    const COUNT: usize = 40;
    let dir = TempDir::new();
    let paths: Vec<_> = (0..COUNT).map(|i| dir.path(&format!("s{i}"))).collect();
    paths.iter().for_each(|path| leave_stale(path));
    let _lock = system::flock(dir.path("s0").parent().unwrap());
    let start = std::sync::Barrier::new(COUNT);
    let servers: Vec<_> = std::thread::scope(|scope| {
        let listen = |i: usize| {
            let endpoint = dir.endpoint(&format!("s{i}"));
            let start = &start;
            scope.spawn(move || {
                start.wait();
                A::listen(&endpoint, &[]).unwrap()
            })
        };
        let threads: Vec<_> = (0..COUNT).map(listen).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    paths.iter().for_each(|path| drop(UnixStream::connect(path).unwrap()));
    assert_eq!(names_in(paths[0].parent().unwrap()).len(), COUNT, "no lock file is left");
    // The lock on the directory does not prevent a server from removing its file.
    drop(servers);
    assert_eq!(names_in(paths[0].parent().unwrap()), [""; 0]);
}

/// L5: the error names the lock file that another process holds. An unlocked lock file is reused.
#[cfg(feature = "datagram")]
fn listen_path_lock_held_names_the_lock<A: Api>() {
    let dir = TempDir::new();
    leave_stale(&dir.path("s"));
    let lock = dir.path("s.lock");
    std::fs::write(&lock, "").unwrap();
    let held = system::flock(&lock);
    let (outcome, took) = timed(|| A::listen(&dir.endpoint("s"), &[]));
    let failure = fails(outcome, ErrorKind::AddressInUse);
    let words = format!("the lock file {} is locked by another process", lock.display());
    assert!(failure.message.ends_with(&words), "{failure:?}");
    assert!(took >= Duration::from_secs(1) && took < Duration::from_secs(20), "{took:?}");
    // Neither a free path nor a live one needs the lock.
    let other = A::listen(&dir.endpoint("other"), &[]).unwrap();
    fails(A::listen(&other.endpoint(), &[]), ErrorKind::AddressInUse);
    drop(held);
    let server = A::listen(&dir.endpoint("s"), &[]).unwrap();
    assert!(!lock.exists());
    drop(server);
    // A different file of that name does not count.
    for (what, make) in [
        ("fifo", &(|path: &Path| system::mkfifo(path)) as &dyn Fn(&Path)),
        ("link", &|path| std::os::unix::fs::symlink("/dev/null", path).unwrap()),
        ("directory", &|path| std::fs::create_dir(path).unwrap()),
    ] {
        leave_stale(&dir.path(what));
        make(&dir.path(&format!("{what}.lock")));
        A::listen(&dir.endpoint(what), &[]).unwrap();
        leave_stale(&dir.path(what));
        A::Datagram::bind(&dir.endpoint(what), &[]).unwrap();
    }
}

/// L5: another user, who can create any name in a sticky directory, does not block a server there.
fn listen_stale_path_in_a_sticky_directory_ignores_lock_files_of_others<A: Api>() {
    let dir = TempDir::new();
    if let Err(e) = std::os::unix::fs::chown(dir.path(""), Some(0), None) {
        return println!("skipped: only root can change the owner: {e}");
    }
    let sticky = dir.path("d");
    std::fs::create_dir(&sticky).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o1777);
    std::fs::set_permissions(&sticky, mode).unwrap();
    let foreign = |name: &str, owner| {
        let path = sticky.join(name);
        std::fs::write(&path, "").unwrap();
        std::os::unix::fs::chown(&path, Some(owner), None).unwrap();
        system::flock(&path)
    };
    let held = [foreign("s.lock", 65534), foreign("s.lock.0", 65534)];
    // The library waits for a lock for a second.
    promptly(Duration::from_millis(900), || {
        leave_stale(&sticky.join("s"));
        let (server, took) = timed(|| A::listen(&dir.endpoint("d/s"), &[]).unwrap());
        fails(A::listen(&dir.endpoint("d/s"), &[]), ErrorKind::AddressInUse);
        drop(server);
        took
    });
    // The lock of a user that may replace the file counts, whatever its number.
    leave_stale(&sticky.join("s"));
    let ours = foreign("s.lock.1", 0);
    let failure = fails(A::listen(&dir.endpoint("d/s"), &[]), ErrorKind::AddressInUse);
    assert!(failure.message.contains("s.lock.1 is locked by another process"), "{failure:?}");
    drop(ours);
    drop(A::listen(&dir.endpoint("d/s"), &[]).unwrap());
    let mut left = names_in(&sticky);
    left.sort();
    assert_eq!(left, ["s.lock", "s.lock.0"], "no lock file of a server is left");
    drop(held);
}

/// L5: a socket that is bound and does not listen yet is not stale, and a live server does not
/// notice the check of another server.
#[cfg(feature = "datagram")]
fn listen_path_of_a_bound_socket_is_in_use<A: Api>() {
    let _no_copies = support::process::no_starts();
    let dir = TempDir::new();
    for kind in [socket2::Type::STREAM, socket2::Type::SEQPACKET, socket2::Type::DGRAM] {
        let path = dir.path(&format!("{kind:?}"));
        let socket = socket2::Socket::new(socket2::Domain::UNIX, kind, None).unwrap();
        socket.bind(&socket2::SockAddr::unix(&path).unwrap()).unwrap();
        let endpoint = format!("unix:{}", path.display());
        fails(A::listen(&endpoint, &[]), ErrorKind::AddressInUse);
        fails(A::Datagram::bind(&endpoint, &[]).map(drop), ErrorKind::AddressInUse);
        drop(socket);
        A::listen(&endpoint, &[]).unwrap();
    }
    let server = A::listen(&dir.endpoint("live"), &[]).unwrap();
    fails(A::listen(&server.endpoint(), &[]), ErrorKind::AddressInUse);
    server.set_nonblocking(true).unwrap();
    fails(server.accept(), ErrorKind::WouldBlock);
}

/// L5: a directory with write permission and without read permission is sufficient, also for a
/// stale path.
fn listen_stale_path_in_a_write_only_directory<A: Api>() {
    let dir = TempDir::new();
    std::fs::create_dir(dir.path("d")).unwrap();
    leave_stale(&dir.path("d/s"));
    let mode = |mode| {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(dir.path("d"), mode).unwrap();
    };
    mode(0o300);
    // Without capabilities the mode also applies to root. Capabilities belong to the thread.
    std::thread::scope(|scope| {
        let listens = scope.spawn(|| {
            limits::give_up_all_capabilities();
            File::open(dir.path("d")).unwrap_err();
            drop(A::listen(&dir.endpoint("d/s"), &[]).unwrap());
        });
        listens.join().unwrap();
    });
    mode(0o700);
    assert_eq!(names_in(&dir.path("d")), [""; 0]);
}

/// L5, E1: without a free descriptor the call reports that. It leaves no file, and no socket whose
/// close leaves its file.
#[cfg(feature = "datagram")]
fn listen_path_without_descriptors_leaves_no_file<A: Api>() {
    let test = "listen_path_without_descriptors_leaves_no_file";
    process::in_process(&test_name!(A, test), Duration::from_secs(20), || {
        let dir = TempDir::new();
        let endpoint = dir.endpoint("s");
        limits::limit_descriptors(64);
        // The first calls of a process open more descriptors, and the first failure reads the headers.
        drop(A::listen(&endpoint, &[]).unwrap());
        fails(A::listen("", &[]).map(drop), ErrorKind::InvalidEndpoint);
        fails(A::Datagram::bind("", &[]).map(drop), ErrorKind::InvalidEndpoint);
        let mode = Opt::UnixMode(0o600);
        let calls: [&dyn Fn() -> support::Outcome<()>; 3] = [
            &|| A::listen(&endpoint, &[]).map(drop),
            &|| A::listen(&endpoint, std::slice::from_ref(&mode)).map(drop),
            &|| A::Datagram::bind(&endpoint, &[]).map(drop),
        ];
        for (number, call) in calls.iter().enumerate() {
            let mut succeeded = false;
            for free in 0..8 {
                let open = || File::open("/dev/null");
                let mut hoard: Vec<_> =
                    std::iter::repeat_with(open).map_while(Result::ok).collect();
                hoard.truncate(hoard.len() - free);
                let outcome = call();
                drop(hoard);
                println!("call {number}, {free} descriptors: {outcome:?}");
                assert!(succeeded <= outcome.is_ok());
                match outcome {
                    Ok(()) => succeeded = true,
                    failed => drop(fails(failed, ErrorKind::NoDescriptors)),
                }
                assert_eq!(names_in(&dir.path("")), [""; 0]);
            }
            assert!(succeeded);
        }
    });
}

/// L5: a path below a file that is not a directory fails at once.
#[cfg(feature = "datagram")]
fn listen_path_below_a_fifo_fails<A: Api>() {
    let dir = TempDir::new();
    system::mkfifo(&dir.path("fifo"));
    std::fs::write(dir.path("file"), "").unwrap();
    for name in ["fifo/s", "file/s"] {
        let endpoint = dir.endpoint(name);
        let failure = fails(A::listen(&endpoint, &[]), ErrorKind::Os);
        assert_eq!((failure.os_error, &failure.endpoint), (libc::ENOTDIR, &endpoint));
        let failure = fails(A::Datagram::bind(&endpoint, &[]).map(drop), ErrorKind::Os);
        assert_eq!((failure.os_error, &failure.endpoint), (libc::ENOTDIR, &endpoint));
    }
}

/// L5: the file is removed when the server closes, unless another server has replaced it.
fn close_of_server_removes_its_file<A: Api>() {
    let dir = TempDir::new();
    let server = A::listen(&dir.endpoint("s"), &[]).unwrap();
    server.close();
    assert!(!dir.path("s").exists());
    server.close();
    drop(server);
    drop(A::listen(&dir.endpoint("s"), &[]).unwrap());
    assert!(!dir.path("s").exists());
    // The file is removed by the test and replaced by another server.
    let first = A::listen(&dir.endpoint("s"), &[]).unwrap();
    std::fs::remove_file(dir.path("s")).unwrap();
    let _second = UnixListener::bind(dir.path("s")).unwrap();
    first.close();
    UnixStream::connect(dir.path("s")).unwrap();
}

/// L6: an accepted connection is close-on-exec and blocking. It inherits neither the timeouts nor
/// the non-blocking mode of the listener.
fn accepted_connection_inherits_no_listener_settings<A: Api>() {
    for transport in support::TRANSPORTS {
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
        let (outcome, took) = support::while_waiting(
            || later.read(&mut [0; 8]),
            || {
                std::thread::sleep(Duration::from_millis(120));
                later.close().unwrap();
            },
        );
        fails(outcome, ErrorKind::Closed);
        assert!(took >= Duration::from_millis(120), "the accept timeout ended a read");
    }
    // The connection options apply to each connection.
    let options = [Opt::ReadTimeout(300), Opt::WriteTimeout(400), Opt::CloseTimeout(0)];
    let p = pair_with::<A>(Transport::Tcp, &options);
    let fd = p.accepted.fd().unwrap();
    let ms = Duration::from_millis;
    assert_eq!(round(system::timeout_option(fd, libc::SO_RCVTIMEO)), ms(300));
    assert_eq!(round(system::timeout_option(fd, libc::SO_SNDTIMEO)), ms(400));
    let listener = p.server.fd().unwrap();
    assert_eq!(system::timeout_option(listener, libc::SO_RCVTIMEO), Duration::ZERO);
}

/// Rounds up to the kernel's clock ticks.
fn round(time: Duration) -> Duration {
    Duration::from_millis(time.as_millis() as u64 / 20 * 20)
}
