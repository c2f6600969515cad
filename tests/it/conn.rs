//! Functions of a connection of an event-driven service: several slices, the descriptor.

use crate::support::libc;
use crate::support::os::RawFd;
use std::io::Write;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use socket2::SockRef;

use crate::serve_events::{at, listen, raw, reporting, some};
use crate::support::*;
use keepsock::{ErrorKind, Framing, LengthFormat, Sockopt};

both_apis![send_slices_sends_one_message, descriptor_of_connection_is_its_socket];

/// I1, V3, V6: several slices are one message, in the framing and within the queue limit; also when
/// they are queued, and when there are more of them than one system call takes.
fn send_slices_sends_one_message<A: Api>() {
    let framing = Framing::Prefixed { format: LengthFormat::U32Be, max: 1 << 20 };
    let server = listen::<A>(&[]);
    let (mut on, _told) = reporting::<A>();
    let (results, told) = channel();
    let results = Mutex::new(results);
    on.data = Some(Box::new(move |c, data| {
        let mut slices = vec![&b"head "[..], b"", data];
        c.send_slices(&slices).unwrap();
        // More slices than one system call takes, and more bytes than the kernel accepts.
        let part = [data, &[7; 2000]].concat();
        slices = vec![&part; 10_000];
        c.send_slices(&slices).unwrap();
        let queued = c.queued();
        c.send_slices(&[]).unwrap();
        let mebibyte = vec![0; 1 << 20];
        let too_long = c.send_slices(&vec![&mebibyte[..]; 1 << 12]);
        results.lock().unwrap_or_else(PoisonError::into_inner).send((queued, too_long)).unwrap();
    }));
    let options = [Serve::Framing(framing), Serve::QueueLimit(1 << 20)];
    let service = server.serve_events(&options, on).unwrap();
    let mut client = raw(&at::<A>(&server));
    client.write_all(b"\0\0\0\x04body").unwrap();
    let (queued, too_long) = told.recv_timeout(Duration::from_secs(30)).unwrap();
    assert!(queued > 1 << 20, "a reply is queued whole: {queued}");
    // The length format has 32 bits.
    fails(too_long, ErrorKind::InvalidArgument);
    assert_eq!(some(&client, 4 + 9), b"\0\0\0\x09head body");
    let len = 10_000 * 2004;
    assert_eq!(some(&client, 4), u32::try_from(len).unwrap().to_be_bytes());
    let bytes = some(&client, len);
    assert!(bytes.chunks(2004).all(|part| part[..4] == *b"body" && part[4..] == [7; 2000]));
    assert_eq!(some(&client, 4), [0; 4]);
    let sent = (4 + 9 + 4 + len + 4) as i64;
    eventually("everything is sent", || service.stats().sent == sent);
    assert_eq!(service.stats().written, sent);
}

/// The local port of a socket.
fn local_port(fd: RawFd) -> Option<u16> {
    // A callback of the connection calls this function, so the descriptor is open.
    SockRef::from(&system::borrow(fd))
        .local_addr()
        .unwrap()
        .as_socket()
        .map(|address| address.port())
}

/// T4: the descriptor is the connection's socket, from on_open until on_close.
fn descriptor_of_connection_is_its_socket<A: Api>() {
    let server = listen::<A>(&[]);
    let (mut on, _told) = reporting::<A>();
    let (results, told) = channel();
    let results = Arc::new(Mutex::new(results));
    let report = |results: &Arc<Mutex<Sender<_>>>| {
        let results = results.clone();
        move |c: &A::Connection| {
            let fd = c.fd();
            let local = fd.as_ref().ok().and_then(|fd| local_port(*fd));
            let _ = results.lock().unwrap().send((c.clone(), fd, local));
        }
    };
    on.open = Some(Box::new(report(&results)));
    let close = report(&results);
    on.close = Some(Box::new(move |c, _| close(c)));
    let service = server.serve_events(&[Serve::Threads(2)], on).unwrap();
    let client = raw(&at::<A>(&server));
    let port = Some(server.port());
    let recv = |told: &Receiver<(A::Connection, _, _)>| {
        told.recv_timeout(Duration::from_secs(30)).unwrap()
    };
    let (conn, fd, local) = recv(&told);
    assert_eq!(local, port);
    // The option that was set by the descriptor is that of the connection.
    system::set_option(fd.unwrap(), libc::IPPROTO_TCP, libc::TCP_NODELAY, 0);
    assert_eq!(conn.sockopt(Sockopt::Nodelay).unwrap(), 0);
    drop(client);
    let (_, _, local) = recv(&told);
    assert_eq!(local, port, "in on_close");
    eventually("the connection ends", || service.connections() == 0);
    let ended = conn.fd().unwrap_err();
    assert!(ended.is(ErrorKind::Closed) || ended.is(ErrorKind::WrongState), "{ended:?}");
}
