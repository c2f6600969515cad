//! V1, V2: pausing accept, and the CPUs of a service's threads.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::Duration;

use crate::serve_events::{at, echoes, listen, raw, some};
use crate::support::*;
use keepsock::ErrorKind;

both_apis![
    pause_accept_leaves_clients_in_the_queue_until_resume,
    pause_accept_ends_with_stop_and_drain,
    cpus_of_threads_are_those_of_the_options,
    cpus_that_do_not_exist_are_rejected,
];

fn echo<A: Api>(client: &A::Client) {
    let mut buf = [0; 64];
    while let Ok(n @ 1..) = client.read(&mut buf) {
        let _ = client.write_all(&buf[..n]);
    }
}

/// An echo service with 1 or 3 event loops, or with threads.
fn echo_service<A: Api>(server: &A::Server, way: u32) -> A::Service {
    match way {
        1 | 3 => server.serve_events(&[Serve::Threads(way)], echoes::<A>()).unwrap(),
        _ => server.serve(&[], Box::new(|client| echo::<A>(client))).unwrap(),
    }
}

fn is_served(mut client: &TcpStream) -> bool {
    client.set_read_timeout(Some(Duration::from_millis(150))).unwrap();
    let is_served = client.read(&mut [0; 5]).is_ok();
    client.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    is_served
}

/// V1, V2: during a pause new clients connect and are not served; connections continue. After the
/// pause the clients are served. Several pauses are possible.
fn pause_accept_leaves_clients_in_the_queue_until_resume<A: Api>() {
    for way in [1, 3, 0] {
        let server = listen::<A>(&[]);
        let service = echo_service::<A>(&server, way);
        let mut old = raw(&at::<A>(&server));
        old.write_all(b"hello").unwrap();
        assert_eq!(some(&old, 5), b"hello");
        for _ in 0..2 {
            service.pause_accept().unwrap();
            service.pause_accept().unwrap();
            assert!(!service.stats().accepting);
            let opened = service.stats().opened;
            let clients: Vec<_> = (0..12).map(|_| raw(&at::<A>(&server))).collect();
            for mut client in &clients {
                client.write_all(b"hello").unwrap();
            }
            assert!(!is_served(&clients[0]), "{way}");
            assert_eq!(service.stats().opened, opened);
            old.write_all(b"again").unwrap();
            assert_eq!(some(&old, 5), b"again");
            service.resume_accept().unwrap();
            assert!(service.stats().accepting);
            for client in &clients {
                assert_eq!(some(client, 5), b"hello");
            }
            service.resume_accept().unwrap();
        }
    }
}

/// V5: a service stops and drains during a pause, and the waiting clients are reset. A service that
/// has stopped accepting cannot pause.
fn pause_accept_ends_with_stop_and_drain<A: Api>() {
    for way in [1, 3, 0] {
        for end in 0..3 {
            let server = listen::<A>(&[]);
            let service = echo_service::<A>(&server, way);
            let mut old = raw(&at::<A>(&server));
            old.write_all(b"hello").unwrap();
            assert_eq!(some(&old, 5), b"hello");
            service.pause_accept().unwrap();
            let waiting = raw(&at::<A>(&server));
            assert!(!is_served(&waiting));
            match end {
                0 => service.stop(),
                1 => server.close(),
                _ => drop(service.drain(20_000).unwrap()),
            }
            service.wait_stopped(20_000).unwrap();
            let read = (&waiting).read(&mut [0; 5]);
            assert!(!matches!(read, Ok(1..)), "{way}, {end}: {read:?}");
            drop(old);
            service.wait(20_000).unwrap();
            fails(service.pause_accept(), ErrorKind::Closed);
            fails(service.resume_accept(), ErrorKind::Closed);
            assert_eq!(service.stats().opened, 1, "{way}, {end}");
        }
    }
}

/// The CPUs that the calling thread may use, as the kernel prints them.
fn allowed_cpus() -> String {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    line.unwrap().trim().to_owned()
}

/// V1, V2: each event loop and each thread of a pool runs on its CPU only.
fn cpus_of_threads_are_those_of_the_options<A: Api>() {
    // CPU 0 may be forbidden to this process.
    let own = allowed_cpus();
    if !own.starts_with('0') {
        return;
    }
    for is_pool in [false, true] {
        let server = listen::<A>(&[]);
        let (tell, told) = channel();
        let tell = Mutex::new(tell);
        let report = move || tell.lock().unwrap().send(allowed_cpus()).unwrap();
        let options = [Serve::Threads(2), Serve::Cpus(&[0])];
        let _service = if is_pool {
            server.serve(&options, Box::new(move |_| report())).unwrap()
        } else {
            let on = On::<A> { open: Some(Box::new(move |_| report())), ..On::default() };
            server.serve_events(&options, on).unwrap()
        };
        for _ in 0..4 {
            let _client = raw(&at::<A>(&server));
            assert_eq!(told.recv_timeout(Duration::from_secs(60)).unwrap(), "0");
        }
    }
    assert_eq!(allowed_cpus(), own, "the calling thread is unchanged");
}

/// V1, V2, E2: a CPU that the kernel rejects fails the serve call, and the server can serve again.
fn cpus_that_do_not_exist_are_rejected<A: Api>() {
    let server = listen::<A>(&[]);
    for cpus in [&[0, 1023][..], &[1024], &[u32::MAX]] {
        let options = [Serve::Threads(2), Serve::Cpus(cpus)];
        let events = server.serve_events(&options, echoes::<A>()).map(drop);
        let pool = server.serve(&options, Box::new(|_| {})).map(drop);
        for outcome in [events, pool] {
            let failure = fails(outcome, ErrorKind::InvalidArgument);
            assert!(failure.message.contains("does not exist"), "{failure:?}");
        }
    }
    let without_pool = server.serve(&[Serve::Cpus(&[0])], Box::new(|_| {})).map(drop);
    let failure = fails(without_pool, ErrorKind::InvalidArgument);
    assert!(failure.message.contains("cpus has no effect without threads"), "{failure:?}");
    let _service = echo_service::<A>(&server, 1);
    let mut client = raw(&at::<A>(&server));
    client.write_all(b"hello").unwrap();
    assert_eq!(some(&client, 5), b"hello");
}
