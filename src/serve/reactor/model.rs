//! Models of event-driven serving, with the event loop itself: the send queue against a close, posted
//! functions against the end, and new connections against a drain.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use loom::sync::atomic::{AtomicU32, Ordering};
use loom::thread;
use socket2::SockRef;

use super::{Connection, Handler};
use crate::listener::ServerSocket;
use crate::options::SocketOptions;
use crate::serve::{ServeOptions, Service};
use crate::stream::ClientSocket;
use crate::sys::model::{explore, program, sleep};
use crate::types::close_reason::CloseReason;
use crate::types::error::ErrorKind;

/// The numbers of callbacks and functions that have run.
#[derive(Default)]
struct Counts {
    opened: AtomicU32,
    closed: AtomicU32,
    called: AtomicU32,
}

struct Counting(Arc<Counts>);

impl Handler for Counting {
    fn on_open(&self, _: &Connection) {
        self.0.opened.fetch_add(1, Ordering::AcqRel);
    }

    fn on_data(&self, _: &Connection, _: &[u8]) {}

    fn on_close(&self, _: &Connection, _: CloseReason) {
        self.0.closed.fetch_add(1, Ordering::AcqRel);
    }
}

fn count(counter: &AtomicU32) -> u32 {
    counter.load(Ordering::Acquire)
}

fn serve(counts: &Arc<Counts>) -> Arc<Service> {
    let server = ServerSocket::listen("127.0.0.1:0").unwrap();
    let options = ServeOptions::new().stack_size(1 << 17);
    Arc::new(server.serve_events(&options, Counting(counts.clone())).unwrap())
}

fn socket(mine: UnixStream) -> ClientSocket {
    ClientSocket::from_owned(mine.into(), &SocketOptions::new()).unwrap()
}

/// Reads to the end, and returns the number of bytes.
fn read_to_the_end(mut peer: &UnixStream) -> usize {
    let (mut total, mut buf) = (0, [0; 4096]);
    loop {
        match peer.read(&mut buf) {
            Ok(0) => return total,
            Ok(n) => total += n,
            Err(e) => assert_eq!(e.kind(), std::io::ErrorKind::WouldBlock),
        }
        sleep(Duration::from_millis(1));
    }
}

/// V2: a close that another thread requests loses no message that a send has accepted, whether the
/// kernel has it or the send queue, and splits none.
#[test]
fn accepted_message_is_sent_before_a_close() {
    explore("send queue against close", Some(1), || {
        program(|| {
            let counts = Arc::default();
            let service = serve(&counts);
            let (mine, peer) = UnixStream::pair().unwrap();
            peer.set_nonblocking(true).unwrap();
            SockRef::from(&mine).set_send_buffer_size(1).unwrap();
            let connection = service.add(socket(mine), None).unwrap();
            let mut sent = 0;
            while connection.queued() == 0 {
                connection.send(&[0; 2048]).unwrap();
                sent += 2048;
            }
            let sender = connection.clone();
            let sender = thread::spawn(move || sender.send(&[0; 100]).map_err(|e| e.kind()));
            connection.close();
            let received = read_to_the_end(&peer);
            match sender.join().unwrap() {
                Ok(()) => sent += 100,
                Err(kind) => assert_eq!(kind, ErrorKind::Closed),
            }
            assert_eq!(received, sent);
            service.drain(Duration::ZERO).unwrap();
            assert_eq!(count(&counts.closed), 1);
        });
    });
}

/// V10: a function that the service has accepted is called once, before a drain returns.
#[test]
fn posted_function_is_called_once_before_the_end() {
    explore("posted functions against the end", Some(1), || {
        program(|| {
            let counts: Arc<Counts> = Arc::default();
            let service = serve(&counts);
            let (poster, called) = (service.clone(), counts.clone());
            let poster = thread::spawn(move || {
                let function = move || {
                    called.called.fetch_add(1, Ordering::AcqRel);
                };
                poster.post(function).map_err(|e| e.kind())
            });
            service.drain(Duration::ZERO).unwrap();
            let before = count(&counts.called);
            match poster.join().unwrap() {
                Ok(()) => assert_eq!((before, count(&counts.called)), (1, 1)),
                Err(kind) => assert_eq!((kind, count(&counts.called)), (ErrorKind::Closed, 0)),
            }
        });
    });
}

/// V10: a function of a connection is called once and before `on_close`, or the post fails.
#[test]
fn function_of_a_connection_is_called_before_its_close() {
    explore("functions of a connection against close", Some(2), || {
        program(|| {
            let counts: Arc<Counts> = Arc::default();
            let service = serve(&counts);
            let (mine, _peer) = UnixStream::pair().unwrap();
            let connection = service.add(socket(mine), None).unwrap();
            let (poster, called) = (connection.clone(), counts.clone());
            let poster = thread::spawn(move || {
                let function = move |_: &Connection| {
                    assert_eq!(count(&called.closed), 0);
                    called.called.fetch_add(1, Ordering::AcqRel);
                };
                poster.post(function).is_ok()
            });
            connection.abort();
            let posted = poster.join().unwrap();
            service.drain(Duration::ZERO).unwrap();
            assert_eq!((count(&counts.called), count(&counts.closed)), (posted.into(), 1));
        });
    });
}

/// V5: a connection that the program adds during a drain is rejected, or the drain ends it: its last
/// callback has returned when the drain returns.
#[test]
fn drain_ends_each_added_connection() {
    explore("gate against drain, event loop", Some(1), || {
        program(|| {
            let counts: Arc<Counts> = Arc::default();
            let service = serve(&counts);
            let (mine, _peer) = UnixStream::pair().unwrap();
            let adder = service.clone();
            let adder = thread::spawn(move || {
                adder.add(socket(mine), None).map_err(|(_, e)| e.kind()).map(drop)
            });
            let drained = service.drain(Duration::ZERO).unwrap();
            let (opened, closed) = (count(&counts.opened), count(&counts.closed));
            assert_eq!(opened, closed);
            match adder.join().unwrap() {
                Ok(()) => assert_eq!((closed, drained.completed + drained.reset), (1, 1)),
                Err(kind) => assert_eq!((kind, closed), (ErrorKind::Closed, 0)),
            }
            assert_eq!(count(&counts.opened), opened);
        });
    });
}
