//! I5: files that event loops send.

use crate::support::libc;
use crate::support::os::{AsRawFd, RawFd};
use std::fs::File;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::serve_events::{What, all, at, closes, listen, raw, reporting, some, until};
use crate::support::*;
use crate::support::{process, watch};
use keepsock::{CloseReason, ErrorKind, Framing, LengthFormat};

both_apis![
    send_file_is_sent_in_order_and_as_it_is,
    send_file_to_fast_reader_lets_others_run,
    send_file_that_becomes_shorter_resets_only_its_connection,
    send_file_without_the_bytes_is_rejected,
    send_file_with_wrong_size_is_rejected,
    send_file_sends_the_end_at_the_time_of_the_call,
    send_file_contains_no_heartbeat,
    send_file_as_reply_stops_reading,
    send_file_of_short_files_as_replies_stops_reading,
    send_file_is_rejected_while_16_files_wait,
    send_file_of_huge_length_does_not_wrap_the_counters,
    send_file_ends_with_close_shutdown_and_drain,
    send_file_to_reset_peer_raises_no_sigpipe_and_leaves_no_descriptor,
    send_file_in_forked_parent_continues,
];

const MIB: usize = 1 << 20;
/// More than the kernel and the peer's receive buffer hold.
const MUCH: usize = 24 * MIB;

fn file_of(bytes: &[u8]) -> File {
    let mut file = system::blank_file(0);
    file.write_all(bytes).unwrap();
    file
}

/// A service that reports its connections, and one connection of the service.
fn served<A: Api>(
    options: &[Opt<'_, A>],
    serve: &[Serve],
) -> (A::Server, A::Service, TcpStream, A::Connection, Receiver<What>) {
    let server = listen::<A>(options);
    let (mut on, told) = reporting::<A>();
    let (opened, open) = channel();
    let opened: Mutex<Sender<A::Connection>> = Mutex::new(opened);
    on.open = Some(Box::new(move |c| drop(opened.lock().unwrap().send(c.clone()))));
    on.drain = Some(Box::new(|c| c.close()));
    let service = server.serve_events(serve, on).unwrap();
    let client = raw(&at::<A>(&server));
    let conn = open.recv_timeout(Duration::from_secs(60)).unwrap();
    (server, service, client, conn, told)
}

/// I5, V6: a file is sent between the messages before and after it, without marks of the framing,
/// from its offset. The program closes its descriptor at once.
fn send_file_is_sent_in_order_and_as_it_is<A: Api>() {
    let content = bytes(3 * MIB);
    let dir = TempDir::new();
    for (endpoint, loops) in [("127.0.0.1:0", 1), ("127.0.0.1:0", 3), (&*dir.endpoint("s"), 1)] {
        let server = A::listen(endpoint, &[]).unwrap();
        let (mut on, _told) = reporting::<A>();
        let content_of_file = content.clone();
        on.data = Some(Box::new(move |c, request| {
            assert_eq!(request, b"get");
            let file = file_of(&content_of_file);
            for _ in 0..3 {
                c.send(b"head").unwrap();
                c.send_file(file.as_raw_fd(), 5, 2 * MIB as u64).unwrap();
                c.send_file(file.as_raw_fd(), MIB as u64, u64::MAX).unwrap();
                c.send_file(file.as_raw_fd(), 9, 0).unwrap();
                c.send(b"tail").unwrap();
            }
            c.shutdown_write();
        }));
        let framing = Framing::Prefixed { format: LengthFormat::U8, max: 100 };
        let options = [Serve::Framing(framing), Serve::Threads(loops)];
        let service = server.serve_events(&options, on).unwrap();
        let client = A::connect(&server.endpoint(), &[]).unwrap();
        client.write_all(b"\x03get").unwrap();
        let one =
            [&b"\x04head"[..], &content[5..5 + 2 * MIB], &content[MIB..], b"\x04tail"].concat();
        let mut got = vec![0; 3 * one.len()];
        client.read_exact(&mut got).unwrap();
        assert!(got == one.repeat(3), "{endpoint}, {loops}");
        assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
        let stats = service.stats();
        assert_eq!((stats.written, stats.sent), (got.len() as i64, got.len() as i64));
    }
}

/// I5, V3: a long file to a client that reads fast delays no other connection of the loop.
fn send_file_to_fast_reader_lets_others_run<A: Api>() {
    const LEN: u64 = 8 << 30;
    let (server, service, mut client, conn, told) = served::<A>(&[], &[]);
    let reader = std::thread::spawn(move || {
        let mut buf = vec![0; MIB];
        while client.read(&mut buf).is_ok_and(|n| n > 0) {}
    });
    let file = system::blank_file(LEN);
    conn.send_file(file.as_raw_fd(), 0, LEN).unwrap();
    for round in 0..20 {
        let mut other = raw(&at::<A>(&server));
        other.write_all(b"hello").unwrap();
        until(&told, |what| matches!(what, What::Data(_, data) if data == b"hello"));
        assert!(conn.queued() > 0, "round {round}: the file was sent before others were served");
    }
    assert!(service.stats().sent > 0);
    conn.abort();
    reader.join().unwrap();
}

/// I5, K7: a file that becomes shorter after its first bytes were sent ends its connection, with a close
/// reason of its own, and no other.
fn send_file_that_becomes_shorter_resets_only_its_connection<A: Api>() {
    let (server, service, client, conn, told) = served::<A>(&[], &[Serve::Threads(2)]);
    let file = system::blank_file(MUCH as u64);
    let mut other = raw(&at::<A>(&server));
    conn.send_file(file.as_raw_fd(), 0, MUCH as u64).unwrap();
    conn.send(b"after the file").unwrap();
    file.set_len(1).unwrap();
    let mut got = Vec::new();
    let failure = (&client).read_to_end(&mut got).unwrap_err();
    assert_eq!(failure.kind(), std::io::ErrorKind::ConnectionReset);
    assert!(got.len() < MUCH && got.iter().all(|byte| *byte == 0));
    let What::Close(_, reason) = until(&told, closes) else { panic!("no close") };
    assert_eq!(reason, CloseReason::FileFailed);
    other.write_all(b"hello").unwrap();
    until(&told, |what| matches!(what, What::Data(_, data) if data == b"hello"));
    let stats = service.stats();
    assert_eq!(stats.written, stats.sent + stats.dropped);
    assert_eq!(stats.ends, [(CloseReason::FileFailed, 1)]);
}

/// I5, E2: a descriptor that is not a file, or whose file lacks the bytes, is rejected, and the
/// connection is unchanged. A file whose size the kernel does not know needs a length.
fn send_file_without_the_bytes_is_rejected<A: Api>() {
    let (_server, _service, client, conn, _told) = served::<A>(&[], &[]);
    let (reader, _writer) = system::pipe();
    let directory = File::open("/").unwrap();
    let write_only = File::create("/dev/null").unwrap();
    let file = file_of(b"0123456789");
    // An emulator of processors replaces some files of /proc, but not this one.
    let proc_file = File::open("/proc/self/status").unwrap();
    let (zero, null) = (File::open("/dev/zero").unwrap(), File::open("/dev/null").unwrap());
    let closed = i32::MAX as RawFd;
    for (fd, offset, len, why) in [
        (reader.as_raw_fd(), 0, 1, "a pipe or a socket"),
        (client.as_raw_fd(), 0, 1, "a pipe or a socket"),
        (directory.as_raw_fd(), 0, 1, "a directory"),
        (write_only.as_raw_fd(), 0, 1, "not open for reading"),
        (closed, 0, 1, ""),
        (file.as_raw_fd(), 0, 11, "10 bytes does not have 11 bytes from offset 0"),
        (file.as_raw_fd(), 10, 1, "does not have 1 bytes from offset 10"),
        (file.as_raw_fd(), 1 << 62, 1 << 62, "does not have"),
        (file.as_raw_fd(), 1 << 63, 1, "the largest one"),
        (proc_file.as_raw_fd(), 0, u64::MAX, "pass the number of bytes"),
        (proc_file.as_raw_fd(), 0, 1 << 20, "does not have"),
        (reader.as_raw_fd(), 0, u64::MAX, "a pipe or a socket"),
        (client.as_raw_fd(), 0, u64::MAX, "a pipe or a socket"),
        (directory.as_raw_fd(), 0, u64::MAX, "a directory"),
        (zero.as_raw_fd(), 0, u64::MAX, "pass the number of bytes"),
        (zero.as_raw_fd(), 5, u64::MAX, "pass the number of bytes"),
        (zero.as_raw_fd(), 1, i64::MAX as u64, "does not have"),
        (zero.as_raw_fd(), 0, u64::MAX - 1, "does not have"),
        (null.as_raw_fd(), 0, u64::MAX, "pass the number of bytes"),
        (null.as_raw_fd(), 0, 1, "does not have"),
        (file.as_raw_fd(), i64::MAX as u64, u64::MAX - 1, "does not have"),
    ] {
        let failure = fails(conn.send_file(fd, offset, len), ErrorKind::InvalidArgument);
        assert!(failure.message.contains(why), "{failure:?}");
    }
    // sendfile(2) does not support the file, or supports it: both ways send it.
    assert_eq!(conn.queued(), 0);
    conn.send_file(proc_file.as_raw_fd(), 0, 4).unwrap();
    conn.send_file(file.as_raw_fd(), 10, u64::MAX).unwrap();
    conn.send_file(file.as_raw_fd(), 3, u64::MAX).unwrap();
    let sent = some(&client, 11);
    assert_eq!(sent, b"Name3456789");
    conn.close();
    fails(conn.send_file(file.as_raw_fd(), 0, 1), ErrorKind::Closed);
}

/// I5, E2: a file whose size is larger than its content, as in /sys, is rejected before a byte is sent,
/// unless the requested bytes exist.
fn send_file_with_wrong_size_is_rejected<A: Api>() {
    let names = ["/sys/kernel/mm/transparent_hugepage/enabled", "/sys/devices/system/cpu/online"];
    let Some(mut file) = names.iter().find_map(|name| File::open(name).ok()) else {
        skip("this machine has no file in /sys")
    };
    let size = file.metadata().unwrap().len();
    let mut content = Vec::new();
    file.read_to_end(&mut content).unwrap();
    let len = content.len() as u64;
    assert!(len > 0 && len < size, "{len}, {size}");
    let (_server, service, client, conn, _told) = served::<A>(&[], &[]);
    for (offset, requested, why) in [
        (0, u64::MAX, "pass the number of bytes"),
        (1, u64::MAX, "pass the number of bytes"),
        (0, size, "does not have"),
        (0, len + 1, "does not have"),
        (len, 1, "does not have"),
    ] {
        let sent = conn.send_file(file.as_raw_fd(), offset, requested);
        let failure = fails(sent, ErrorKind::InvalidArgument);
        assert!(failure.message.contains(why), "{offset}, {requested}: {failure:?}");
    }
    assert_eq!((conn.queued(), service.stats().sent), (0, 0));
    conn.send_file(file.as_raw_fd(), 0, len).unwrap();
    assert_eq!(some(&client, content.len()), content);
    assert!(conn.is_open());
}

/// I5: `u64::MAX` is the end of the file at the time of the call. A file that grows, and a path that
/// leads to another file later, change nothing.
fn send_file_sends_the_end_at_the_time_of_the_call<A: Api>() {
    let content = bytes(MUCH);
    let dir = TempDir::new();
    std::fs::write(dir.path("file"), &content).unwrap();
    std::fs::write(dir.path("new"), b"new").unwrap();
    let (_server, _service, client, conn, _told) = served::<A>(&[], &[]);
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.read(true).append(true).open(dir.path("file")).unwrap();
    conn.send_file(file.as_raw_fd(), 0, u64::MAX).unwrap();
    conn.close();
    assert!(conn.queued() > 0);
    file.write_all(b"appended").unwrap();
    // Windows does not replace an open file.
    if cfg!(unix) {
        std::fs::rename(dir.path("new"), dir.path("file")).unwrap();
    }
    assert!(all(&client) == content);
}

/// I5, K5: no heartbeat is sent inside a file, however slowly the peer reads.
fn send_file_contains_no_heartbeat<A: Api>() {
    let options = [Opt::Heartbeat(b"PING", 20)];
    let (_server, _service, mut client, conn, _told) = served::<A>(&options, &[]);
    let file = system::blank_file(MUCH as u64);
    conn.send_file(file.as_raw_fd(), 0, u64::MAX).unwrap();
    let (mut total, mut buf) = (0, vec![0; 2 * MIB]);
    let mut before = 0;
    loop {
        // Several heartbeat intervals pass while the file waits.
        if total < 4 * buf.len() {
            std::thread::sleep(Duration::from_millis(60));
        }
        let n = client.read(&mut buf).unwrap();
        // Heartbeats before the file, and after it.
        let zeros = buf[..n].iter().filter(|byte| **byte == 0).count();
        if total == 0 {
            before = buf[..n].iter().position(|byte| *byte == 0).unwrap_or(n);
        }
        assert!(total == 0 || total + zeros == MUCH || zeros == n, "a heartbeat inside the file");
        total += zeros;
        if total == MUCH {
            break;
        }
    }
    assert_eq!(before % 4, 0);
    // A heartbeat follows the file.
    assert!(client.read(&mut buf[..4]).unwrap() > 0);
}

/// V8, I5: while a file is sent as a reply, the loop reads no further requests. So a client that
/// requests many files and reads none of them uses few descriptors.
fn send_file_as_reply_stops_reading<A: Api>() {
    let server = listen::<A>(&[]);
    let (mut on, told) = reporting::<A>();
    let file = Arc::new(system::blank_file(MUCH as u64));
    let (requests, requested) = channel();
    let requests = Mutex::new(requests);
    on.data = Some(Box::new({
        let file = file.clone();
        move |c, _| {
            // The remaining requests are delivered after the client has reset the connection.
            if c.send_file(file.as_raw_fd(), 0, u64::MAX).is_ok() {
                let _ = requests.lock().unwrap().send(c.queued());
            }
        }
    }));
    let framing = Framing::Fixed { len: 1 };
    let _service = server.serve_events(&[Serve::Framing(framing)], on).unwrap();
    let mut client = raw(&at::<A>(&server));
    client.write_all(&[b'x'; 1000]).unwrap();
    let queued: usize = requested.recv_timeout(Duration::from_secs(60)).unwrap();
    assert!(queued > MIB, "{queued}");
    // The client reads three files. The kernel may hold some more.
    for _ in 0..3 {
        assert!(some(&client, MUCH).iter().all(|byte| *byte == 0));
    }
    let more = requested.try_iter().count();
    assert!(more < 20, "{more}");
    drop(client);
    until(&told, closes);
}

/// V8, I5: a short file among the replies stops reading as a long one, because each queued file has
/// a descriptor.
fn send_file_of_short_files_as_replies_stops_reading<A: Api>() {
    let server = listen::<A>(&[]);
    let (mut on, told) = reporting::<A>();
    let (long, short) = (Arc::new(system::blank_file(MUCH as u64)), system::blank_file(16));
    let requests = Arc::new(AtomicUsize::new(0));
    let requested = requests.clone();
    let (opened, open) = channel();
    let opened: Mutex<Sender<A::Connection>> = Mutex::new(opened);
    on.open = Some(Box::new(move |c| drop(opened.lock().unwrap().send(c.clone()))));
    on.data = Some(Box::new(move |c, request| match request {
        b"x" => {
            requested.fetch_add(1, Ordering::Relaxed);
            c.send_file(short.as_raw_fd(), 0, u64::MAX).unwrap();
        }
        _ => c.send(b"p").unwrap(),
    }));
    let framing = Framing::Fixed { len: 1 };
    let options = [Serve::Framing(framing), Serve::Threads(1)];
    let _service = server.serve_events(&options, on).unwrap();
    let mut client = raw(&at::<A>(&server));
    let conn = open.recv_timeout(Duration::from_secs(60)).unwrap();
    // A pushed file does not stop reading.
    conn.send_file(long.as_raw_fd(), 0, u64::MAX).unwrap();
    client.write_all(&[b'x'; 1000]).unwrap();
    let mut other = raw(&at::<A>(&server));
    for _ in 0..20 {
        other.write_all(b"p").unwrap();
        assert_eq!(some(&other, 1), b"p");
    }
    eventually("a request arrives", || requests.load(Ordering::Relaxed) > 0);
    assert_eq!(requests.load(Ordering::Relaxed), 1);
    let blank = some(&client, MUCH + 16 * 1000);
    assert!(blank.iter().all(|byte| *byte == 0));
    drop(client);
    until(&told, closes);
}

/// V8, I5: each queued file has a descriptor, so a client that does not read has few of them, also
/// if one callback answers many requests. A rejected file leaves the connection as it is.
fn send_file_is_rejected_while_16_files_wait<A: Api>() {
    let server = listen::<A>(&[]);
    let (mut on, _told) = reporting::<A>();
    let long = Arc::new(system::blank_file(MUCH as u64));
    let (results, result) = channel();
    let results = Mutex::new(results);
    let (opened, open) = channel();
    let opened: Mutex<Sender<A::Connection>> = Mutex::new(opened);
    on.open = Some(Box::new(move |c| drop(opened.lock().unwrap().send(c.clone()))));
    on.writable = Some(Box::new(|c| c.send(b"writable").unwrap()));
    let send_all = {
        let long = long.clone();
        move |c: &A::Connection| {
            let sent = (0..16).all(|_| c.send_file(long.as_raw_fd(), 0, u64::MAX).is_ok());
            (sent, c.send_file(long.as_raw_fd(), 0, 1), c.queued())
        }
    };
    on.data = Some(Box::new({
        let send_all = send_all.clone();
        move |c, _| drop(results.lock().unwrap().send(send_all(c)))
    }));
    let _service = server.serve_events(&[], on).unwrap();
    for is_reply in [false, true] {
        let mut client = raw(&at::<A>(&server));
        let conn = open.recv_timeout(Duration::from_secs(60)).unwrap();
        let (sent, rejected, queued) = if is_reply {
            client.write_all(b"all").unwrap();
            result.recv_timeout(Duration::from_secs(60)).unwrap()
        } else {
            send_all(&conn)
        };
        assert!(sent && queued <= 16 * MUCH, "{is_reply}, {queued}");
        let failure = fails(rejected, ErrorKind::NoDescriptors);
        assert!(failure.message.contains("no room for another file"), "{failure:?}");
        for _ in 0..16 {
            assert!(some(&client, MUCH).iter().all(|byte| *byte == 0));
        }
        assert_eq!(some(&client, 8), b"writable");
        conn.send_file(long.as_raw_fd(), 0, 5).unwrap();
        assert_eq!(some(&client, 5), [0; 5]);
    }
}

/// K7, I5: files of any length are counted without an overflow.
fn send_file_of_huge_length_does_not_wrap_the_counters<A: Api>() {
    let server = listen::<A>(&[]);
    let (mut on, _told) = reporting::<A>();
    let zero = File::open("/dev/zero").unwrap();
    let (results, result) = channel();
    let results = Mutex::new(results);
    on.open = Some(Box::new(move |c| {
        let send = || c.send_file(zero.as_raw_fd(), 0, i64::MAX as u64);
        let _ = results.lock().unwrap().send((send(), send(), c.queued()));
    }));
    let service = server.serve_events(&[], on).unwrap();
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(raw(&at::<A>(&server)));
        let (first, second, queued) = result.recv_timeout(Duration::from_secs(60)).unwrap();
        first.unwrap();
        fails(second, ErrorKind::NoDescriptors);
        assert!(queued > isize::MAX as usize / 2, "{queued}");
        let stats = service.stats();
        assert_eq!(stats.written, i64::MAX, "{stats:?}");
        assert!(stats.queued > i64::MAX / 2, "{stats:?}");
    }
    clients.into_iter().for_each(system::reset);
    eventually("the connections end", || service.connections() == 0);
    let stats = service.stats();
    assert_eq!((stats.queued, stats.dropped), (0, i64::MAX), "{stats:?}");
}

/// I3, V5, I5: a close, a half-close and a drain send the queued file first. A close timeout that
/// expires while the file is sent resets the connection.
fn send_file_ends_with_close_shutdown_and_drain<A: Api>() {
    let content = bytes(MUCH);
    let file = file_of(&content);
    for way in 0..4 {
        let timeout = if way == 3 { 50 } else { 60_000 };
        let options = [Opt::CloseTimeout(timeout)];
        let (_server, service, client, conn, told) = served::<A>(&options, &[]);
        conn.send_file(file.as_raw_fd(), 0, u64::MAX).unwrap();
        assert!(conn.queued() > MIB);
        match way {
            0 | 3 => conn.close(),
            1 => conn.shutdown_write(),
            _ => {}
        }
        if way == 3 {
            let What::Close(_, reason) = until(&told, closes) else { panic!("no close") };
            assert_eq!(reason, CloseReason::Local);
            let mut got = Vec::new();
            assert!((&client).read_to_end(&mut got).is_err() && got.len() < MUCH);
            continue;
        }
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let got = all(&client);
                client.shutdown(Shutdown::Both).unwrap();
                got
            });
            if way == 2 {
                assert_eq!(service.drain(60_000).unwrap(), (1, 0));
            }
            assert!(reader.join().unwrap() == content, "way {way}");
        });
        until(&told, closes);
    }
}

/// I2, I5: a peer that resets the connection while a file is sent causes no SIGPIPE, and the library
/// closes its copy of the file's descriptor; the same for a close by another thread.
fn send_file_to_reset_peer_raises_no_sigpipe_and_leaves_no_descriptor<A: Api>() {
    let test = "send_file_to_reset_peer_raises_no_sigpipe_and_leaves_no_descriptor";
    process::in_process(&test_name!(A, test), Duration::from_secs(60), || {
        // The Rust runtime ignores the signal. C programs do not.
        system::set_disposition(libc::SIGPIPE, libc::SIG_DFL);
        let file = system::blank_file(MUCH as u64);
        let mut counts = Vec::new();
        for _ in 0..6 {
            let (_server, service, client, conn, told) = served::<A>(&[], &[]);
            conn.send_file(file.as_raw_fd(), 0, u64::MAX).unwrap();
            conn.send_file(file.as_raw_fd(), 0, u64::MAX).unwrap();
            system::reset(client);
            let What::Close(_, reason) = until(&told, closes) else { panic!("no close") };
            assert_eq!(reason, CloseReason::PeerReset);
            eventually("the connection ends", || service.connections() == 0);
            counts.push(watch::count_descriptors());
        }
        assert!(counts[1..].iter().all(|count| *count == counts[1]), "{counts:?}");
    });
}

/// E5, I5: a forked child has no part in a file that the parent sends.
fn send_file_in_forked_parent_continues<A: Api>() {
    process::in_process(
        &test_name!(A, "send_file_in_forked_parent_continues"),
        Duration::from_secs(60),
        || {
            let content = bytes(MUCH);
            let file = file_of(&content);
            let (_server, service, client, conn, _told) = served::<A>(&[], &[]);
            conn.send_file(file.as_raw_fd(), 0, u64::MAX).unwrap();
            drop(file);
            conn.close();
            let mut service = Some(service);
            assert!(system::Forked::run(|| drop(service.take())));
            assert!(all(&client) == content);
        },
    );
}
