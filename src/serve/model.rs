//! Models of a service: the gate that admits connections against a drain.

use std::sync::Arc;
use std::time::Duration;

use loom::sync::atomic::{AtomicU32, Ordering};
use loom::thread;

use crate::listener::ServerSocket;
use crate::serve::{Drained, ServeOptions};
use crate::sys::model::{explore, program};
use crate::types::error::ErrorKind;

/// One client that has connected and that reads until the server closes the connection.
fn client(server: &ServerSocket) -> std::net::TcpStream {
    let port = server.endpoint().port().unwrap();
    std::net::TcpStream::connect(("127.0.0.1", port)).unwrap()
}

/// V5: a connection that waits in the listen queue is either served, and then notified of the drain, or
/// not accepted at all. After the drain no handler runs, and the counts are complete.
#[test]
fn drain_ends_each_admitted_connection() {
    explore("gate against drain, a thread for each connection", Some(2), || {
        program(|| {
            let server = ServerSocket::listen("127.0.0.1:0").unwrap();
            let _peer = client(&server);
            let (begun, ended) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
            let counts = (begun.clone(), ended.clone());
            let options = ServeOptions::new().threads(1);
            let service = server
                .serve_with(&options, move |client| {
                    counts.0.fetch_add(1, Ordering::AcqRel);
                    let read = client.read(&mut [0; 8]).map_err(|e| e.kind());
                    assert_eq!(read, Err(ErrorKind::Draining));
                    counts.1.fetch_add(1, Ordering::AcqRel);
                })
                .unwrap();
            let Drained { completed, reset, .. } = service.drain(Duration::from_secs(100)).unwrap();
            let begun = begun.load(Ordering::Acquire);
            assert_eq!((completed, reset), (begun, 0));
            assert_eq!(ended.load(Ordering::Acquire), begun);
            service.wait(Duration::ZERO).unwrap();
        });
    });
}

/// V5: two drains at the same time return the same result, the second one after its timeout of zero: it
/// resets the connection, which neither of them counts twice.
#[test]
fn drain_at_its_deadline_resets_each_admitted_connection() {
    explore("gate against two drains", Some(2), || {
        program(|| {
            let server = ServerSocket::listen("127.0.0.1:0").unwrap();
            let _peer = client(&server);
            let begun = Arc::new(AtomicU32::new(0));
            let counts = begun.clone();
            let options = ServeOptions::new().threads(1);
            let service = server
                .serve_with(&options, move |client| {
                    counts.fetch_add(1, Ordering::AcqRel);
                    client.read(&mut [0; 8]).unwrap_err();
                })
                .unwrap();
            let service = Arc::new(service);
            let other = service.clone();
            let other = thread::spawn(move || other.drain(Duration::from_secs(100)).unwrap());
            let mine = service.drain(Duration::ZERO).unwrap();
            let other = other.join().unwrap();
            assert_eq!((mine.completed, mine.reset), (other.completed, other.reset));
            assert_eq!(mine.completed + mine.reset, begun.load(Ordering::Acquire));
        });
    });
}
