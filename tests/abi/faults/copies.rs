//! Calls that copy bytes of the program or the peer while the process has no memory for the copy.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Barrier, Mutex};

use super::memory::without_allocations_of;
use super::*;
use crate::support::{eventually, statuses};
use keepsock::{CloseReason, OverflowPolicy};

const MIB: usize = 1 << 20;
const SLOW_CONSUMER: i32 = CloseReason::SlowConsumer as i32;

/// Fails the test unless the call returned this status, and its documentation lists it.
fn returned(name: &str, kind: ErrorKind, status: i32) {
    assert_eq!(status, kind.code(), "{name}");
    assert!(statuses::may_return(name, status, ""), "{name} does not list {kind:?}");
}

/// A record of the callbacks of a service.
#[derive(Default)]
struct Called {
    opened: Mutex<Vec<keepsock_conn>>,
    closed: Mutex<Vec<(keepsock_conn, i32)>>,
    failed: Mutex<Vec<i32>>,
    bytes: AtomicUsize,
}

unsafe fn called<'a>(user: *mut c_void) -> &'a Called {
    unsafe { &*user.cast() }
}

unsafe extern "C" fn opened(conn: keepsock_conn, user: *mut c_void) {
    unsafe { called(user) }.opened.lock().unwrap().push(conn);
}

unsafe extern "C" fn received(_: keepsock_conn, _: *const c_void, len: usize, user: *mut c_void) {
    unsafe { called(user) }.bytes.fetch_add(len, Ordering::SeqCst);
}

unsafe extern "C" fn closed(conn: keepsock_conn, reason: i32, user: *mut c_void) {
    unsafe { called(user) }.closed.lock().unwrap().push((conn, reason));
}

unsafe extern "C" fn failed(error: *const keepsock_error, _: *mut c_void, user: *mut c_void) {
    let status = unsafe { keepsock_error_status(error) };
    unsafe { called(user) }.failed.lock().unwrap().push(status);
}

impl Called {
    fn opened(&self) -> Vec<keepsock_conn> {
        self.opened.lock().unwrap().clone()
    }

    /// The close reason of a connection, once its last callback has run.
    fn reason_of(&self, conn: keepsock_conn) -> i32 {
        let reason = || {
            let closed = self.closed.lock().unwrap();
            closed.iter().find(|(closed, _)| *closed == conn).map(|(_, reason)| *reason)
        };
        eventually("the connection closes", || reason().is_some());
        reason().unwrap()
    }
}

type ServeOptions = Handle<keepsock_serve_options>;

fn serve_options() -> ServeOptions {
    let options =
        made(keepsock_serve_options_free, |o| unsafe { keepsock_serve_options_new(o, null_mut()) });
    unsafe { ok(keepsock_serve_options_set_queue_limit(options.0, 64 * MIB, null_mut())) };
    options
}

/// A service that records its callbacks. The order of the fields is the order of their ends.
struct Recording {
    service: Service,
    server: Server,
    called: Box<Called>,
}

fn recording(options: &ServeOptions) -> Recording {
    let (server, recorded) = (server(&[ANY_PORT]), Box::<Called>::default());
    let mut callbacks: keepsock_callbacks = unsafe { std::mem::zeroed() };
    callbacks.size = size_of_val(&callbacks);
    callbacks.on_open = Some(opened);
    callbacks.on_data = Some(received);
    callbacks.on_close = Some(closed);
    callbacks.on_connect_failed = Some(failed);
    let user = (&raw const *recorded).cast_mut().cast();
    let service = made(keepsock_service_free, |out| unsafe {
        let callbacks = &raw const callbacks;
        keepsock_server_serve_events(server.0, options.0, callbacks, user, out, null_mut())
    });
    Recording { service, server, called: recorded }
}

impl Recording {
    /// The connection that opens while `connect` runs.
    fn open<T>(&self, connect: impl FnOnce() -> T) -> (keepsock_conn, T) {
        let before = self.called.opened().len();
        let made = connect();
        eventually("the connection opens", || self.called.opened().len() > before);
        (self.called.opened()[before], made)
    }

    /// Adds a connection to a raw peer.
    fn add(&self) -> (keepsock_conn, UnixStream, UnixStream) {
        let (ours, peer) = UnixStream::pair().unwrap();
        let client = made(keepsock_client_free, |out| {
            from_fd(&ours, |fd| unsafe { keepsock_client_from_fd(fd, null(), out, null_mut()) })
        });
        let add = || unsafe {
            keepsock_service_add(self.service.0, client.0, null_mut(), null_mut(), null_mut())
        };
        let (conn, status) = self.open(add);
        ok(status);
        (conn, ours, peer)
    }
}

fn send(conn: keepsock_conn, bytes: &[u8]) -> i32 {
    unsafe { keepsock_conn_send(conn, bytes.as_ptr().cast(), bytes.len(), null_mut()) }
}

/// Writes until the kernel accepts no byte, and returns how many it has accepted.
fn fill(stream: &UnixStream) -> usize {
    stream.set_nonblocking(true).unwrap();
    let (chunk, mut total) = ([1; 4096], 0);
    while let Ok(n) = (&*stream).write(&chunk) {
        total += n;
    }
    while (&*stream).write(&chunk[..1]).is_ok() {
        total += 1;
    }
    total
}

/// V3, E4: a message that neither the kernel nor the send queue takes is sent not at all, with
/// KEEPSOCK_ERR_NO_MEMORY, and the connection stays open. If the kernel took a part, the connection
/// is reset as a slow consumer.
#[test]
fn conn_send_without_memory_sends_all_or_nothing() {
    let test = test_name!("conn_send_without_memory_sends_all_or_nothing");
    process::in_process(&test, timing::ms(60_000), || {
        let service = recording(&serve_options());
        let message = vec![7; 8 * MIB];
        let (conn, ours, mut peer) = service.add();
        let filled = fill(&ours);
        let status = without_allocations_of(MIB, || send(conn, &message));
        returned("keepsock_conn_send", ErrorKind::NoMemory, status);
        // With memory it is queued, after what is in the kernel.
        ok(send(conn, &message));
        let mut got = vec![0; filled + message.len()];
        peer.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        peer.read_exact(&mut got).unwrap();
        assert!(got[..filled].iter().all(|b| *b == 1) && got[filled..] == message[..]);

        let (other, _ours, _peer) = service.add();
        let status = without_allocations_of(MIB, || send(other, &message));
        returned("keepsock_conn_send", ErrorKind::Stalled, status);
        assert_eq!(service.called.reason_of(other), SLOW_CONSUMER);
        ok(send(conn, b"still open"));
        let mut rest = [0; 10];
        peer.read_exact(&mut rest).unwrap();
        assert_eq!(&rest, b"still open");
    });
}

/// V3: without memory for a copy the overflow policy applies to the clients whose kernel does not
/// accept a broadcast; the others receive it.
#[test]
fn broadcast_without_memory_applies_the_overflow_policy() {
    let test = test_name!("broadcast_without_memory_applies_the_overflow_policy");
    process::in_process(&test, timing::ms(60_000), || {
        for (policy, drops) in
            [(OverflowPolicy::Disconnect, false), (OverflowPolicy::DropOldest, true)]
        {
            let options = serve_options();
            unsafe {
                ok(keepsock_serve_options_set_overflow_policy(
                    options.0,
                    policy as i32,
                    null_mut(),
                ));
            }
            let service = recording(&options);
            let (slow, ours, _slow_peer) = service.add();
            fill(&ours);
            let (_, _ours, mut peer) = service.add();
            let message = [7; 2048];
            let (mut sent, mut reset, mut dropped) = (9, 9, 9);
            let status = without_allocations_of(2048, || unsafe {
                let (buf, len) = (message.as_ptr().cast(), message.len());
                let (s, r, d) = (&raw mut sent, &raw mut reset, &raw mut dropped);
                keepsock_service_broadcast(
                    service.service.0,
                    null(),
                    buf,
                    len,
                    s,
                    r,
                    d,
                    null_mut(),
                    null_mut(),
                )
            });
            ok(status);
            let expected = if drops { (2, 0, 1) } else { (1, 1, 0) };
            assert_eq!((sent, reset, dropped), expected);
            let mut got = [0; 2048];
            peer.read_exact(&mut got).unwrap();
            assert_eq!(got, message);
            if !drops {
                assert_eq!(service.called.reason_of(slow), SLOW_CONSUMER);
            }
        }
    });
}

/// V3: joining a group and sending to it fail if there is no memory for the group's table and for the
/// list of its members.
#[test]
fn group_without_memory_fails() {
    let test = test_name!("group_without_memory_fails");
    process::in_process(&test, timing::ms(60_000), || {
        let service = recording(&serve_options());
        let group = c"news".as_ptr();
        let join = |conn| unsafe { keepsock_conn_join(conn, group, null_mut()) };
        // The table for so many members is full.
        let members: Vec<_> = (0..224).map(|_| service.add()).collect();
        members.iter().for_each(|(conn, ..)| ok(join(*conn)));
        let last = service.add();
        let status = without_allocations_of(4096, || join(last.0));
        returned("keepsock_conn_join", ErrorKind::NoMemory, status);
        let send = |sent| unsafe {
            let (service, buf) = (service.service.0, c"x".as_ptr().cast());
            keepsock_service_broadcast(
                service,
                group,
                buf,
                1,
                sent,
                null_mut(),
                null_mut(),
                null_mut(),
                null_mut(),
            )
        };
        let mut sent = 0;
        let status = without_allocations_of(1024, || send(&raw mut sent));
        returned("keepsock_service_broadcast", ErrorKind::NoMemory, status);
        assert_eq!(sent, 0);
        ok(send(&raw mut sent));
        assert_eq!(sent, 224);
    });
}

/// V6, E4: a connection whose partial message cannot be kept is reset; others are not affected.
#[test]
fn partial_message_without_memory_resets_its_connection() {
    let test = test_name!("partial_message_without_memory_resets_its_connection");
    process::in_process(&test, timing::ms(60_000), || {
        let options = serve_options();
        let lines = framing_to_c(&Framing::Lines { max: MIB });
        unsafe { ok(keepsock_serve_options_set_framing(options.0, &raw const lines, null_mut())) };
        let service = recording(&options);
        let (_, mut other) = service.open(|| raw_client(&service.server));
        let (large, mut client) = service.open(|| raw_client(&service.server));
        let reason = without_allocations_of(128 * 1024, || {
            // The rest may find the connection reset.
            let _ = client.write_all(&[b'a'; MIB / 2]);
            service.called.reason_of(large)
        });
        assert_eq!(reason, CloseReason::Local as i32);
        other.write_all(b"hello\n").unwrap();
        let bytes = &service.called.bytes;
        eventually("the line arrives", || bytes.load(Ordering::SeqCst) == b"hello".len());
    });
}

/// E4, V2: a connection waits while there is no memory for its entry. on_open and on_close run once,
/// with the same id. Adding and connecting fail.
#[test]
fn service_without_memory_for_entries_opens_connections_later() {
    let test = test_name!("service_without_memory_for_entries_opens_connections_later");
    process::in_process(&test, timing::ms(60_000), || {
        let service = recording(&serve_options());
        let called = &service.called;
        let target = raw_endpoint();
        let (client, _accepted) = UnixStream::pair().unwrap();
        let added = made(keepsock_client_free, |out| {
            from_fd(&client, |fd| unsafe { keepsock_client_from_fd(fd, null(), out, null_mut()) })
        });
        let add = || unsafe {
            keepsock_service_add(service.service.0, added.0, null_mut(), null_mut(), null_mut())
        };
        let (waiting, status) = without_allocations_of(8192, || {
            let waiting = raw_client(&service.server);
            eventually("accepting waits for memory", || unsafe {
                let mut stats: keepsock_server_stats = std::mem::zeroed();
                let (out, size) = (&raw mut stats, size_of::<keepsock_server_stats>());
                ok(keepsock_server_get_stats(service.server.0, out, size, null_mut()));
                stats.exhausted > 1
            });
            let added = add();
            unsafe {
                let (service, options) = (service.service.0, null());
                ok(keepsock_service_connect(
                    service,
                    target.as_ptr(),
                    options,
                    null_mut(),
                    null_mut(),
                ));
            }
            eventually("the connect fails", || !called.failed.lock().unwrap().is_empty());
            (waiting, added)
        });
        returned("keepsock_service_add", ErrorKind::NoMemory, status);
        assert_eq!(*called.failed.lock().unwrap(), [ErrorKind::NoMemory.code()]);
        drain();
        eventually("the connection opens", || called.opened().len() == 1);
        (&waiting).write_all(b"hello").unwrap();
        eventually("its bytes arrive", || called.bytes.load(Ordering::SeqCst) == 5);
        ok(add());
        eventually("the added connection opens", || called.opened().len() == 2);
        drop(waiting);
        called.reason_of(called.opened()[0]);
        assert!(called.opened().iter().all(|conn| conn.id != 0));
        assert_eq!(called.closed.lock().unwrap().len(), 1);
    });
}

/// K5, A2: a heartbeat that cannot be copied leaves the options and the connection unchanged.
#[test]
fn heartbeat_without_memory_fails() {
    let test = test_name!("heartbeat_without_memory_fails");
    process::in_process(&test, timing::ms(60_000), || {
        let service = recording(&serve_options());
        let added = service.add();
        let (options, client) = (options(), connection(Kind::Plain));
        let beat = vec![7; MIB];
        let (buf, len, e) = (beat.as_ptr().cast(), beat.len(), null_mut());
        let calls: [(&str, &dyn Fn() -> i32); 3] = [
            ("keepsock_options_set_heartbeat", &|| unsafe {
                keepsock_options_set_heartbeat(options.0, 1000, buf, len, e)
            }),
            ("keepsock_client_set_heartbeat", &|| unsafe {
                keepsock_client_set_heartbeat(client.client.0, 1000, buf, len, e)
            }),
            ("keepsock_conn_set_heartbeat", &|| unsafe {
                keepsock_conn_set_heartbeat(added.0, 1000, buf, len, e)
            }),
        ];
        for (name, call) in calls {
            returned(name, ErrorKind::NoMemory, without_allocations_of(MIB, call));
            ok(call());
        }
    });
}

/// I1: lists of buffers that cannot be converted, and bytes that read_exact cannot keep. The program
/// then has them in its buffer.
#[test]
fn reads_and_writes_without_memory_fail() {
    let test = test_name!("reads_and_writes_without_memory_fail");
    process::in_process(&test, timing::ms(60_000), || {
        let e = null_mut();
        let client = connection(Kind::Plain);
        let slice = keepsock_slice { buf: client.buf, len: 0 };
        let slices = vec![slice; MIB];
        let status = without_allocations_of(MIB, || unsafe {
            keepsock_client_write_slices(client.client.0, slices.as_ptr(), slices.len(), e)
        });
        returned("keepsock_client_write_slices", ErrorKind::NoMemory, status);
        let buffers = vec![keepsock_buffer { buf: client.buf, cap: 0 }; MIB];
        let status = without_allocations_of(MIB, || unsafe {
            keepsock_client_read_slices(
                client.client.0,
                buffers.as_ptr(),
                buffers.len(),
                null_mut(),
                e,
            )
        });
        returned("keepsock_client_read_slices", ErrorKind::NoMemory, status);

        let (mut peer, ours) = UnixStream::pair().unwrap();
        let client = made(keepsock_client_free, |out| {
            from_fd(&ours, |fd| unsafe { keepsock_client_from_fd(fd, null(), out, e) })
        });
        let (sent, mut buf) = (vec![7; 2 * MIB], vec![0u8; 4 * MIB]);
        let sending = thread::spawn(move || {
            peer.write_all(&sent).unwrap();
            peer
        });
        unsafe { ok(keepsock_client_set_read_timeout(client.0, 1000, e)) };
        let mut error = null_mut();
        let mut read = || unsafe {
            keepsock_client_read_exact(client.0, buf.as_mut_ptr().cast(), buf.len(), &raw mut error)
        };
        let status = without_allocations_of(MIB / 2, &mut read);
        returned("keepsock_client_read_exact", ErrorKind::NoMemory, status);
        let error = Handle(error, keepsock_error_free);
        assert_eq!(unsafe { keepsock_error_transferred(error.0) }, 2 * MIB);
        assert!(buf[..2 * MIB].iter().all(|byte| *byte == 7));
        assert_eq!(unsafe { keepsock_client_buffered(client.0) }, 0);
        drop(sending.join().unwrap());
    });
}

/// Functions that tests post.
struct Posted {
    begun: Barrier,
    leave: Barrier,
    ran: AtomicUsize,
}

unsafe extern "C" fn hold(user: *mut c_void) {
    let posted = unsafe { &*user.cast::<Posted>() };
    posted.begun.wait();
    posted.leave.wait();
}

unsafe extern "C" fn count(user: *mut c_void) {
    unsafe { &*user.cast::<Posted>() }.ran.fetch_add(1, Ordering::SeqCst);
}

unsafe extern "C" fn never(_: u64, _: *mut c_void) {
    panic!("after a day");
}

unsafe extern "C" fn count_conn(_: keepsock_conn, user: *mut c_void) {
    unsafe { count(user) };
}

/// V10, A2: without memory for another function a post fails, and each function whose post succeeded
/// runs once. A list of connections without memory calls no function.
#[test]
fn post_without_memory_fails_and_the_earlier_functions_run() {
    let test = test_name!("post_without_memory_fails_and_the_earlier_functions_run");
    process::in_process(&test, timing::ms(60_000), || {
        let recording = recording(&serve_options());
        let service = recording.service.0;
        let posted =
            Posted { begun: Barrier::new(2), leave: Barrier::new(2), ran: AtomicUsize::new(0) };
        let user = (&raw const posted).cast_mut().cast();
        let added: Vec<_> = (0..40).map(|_| recording.add()).collect();
        ok(unsafe { keepsock_service_post(service, Some(hold), user, null_mut()) });
        posted.begun.wait();
        let conn = added[0].0;
        let mut accepted = 0;
        for (name, post) in [
            (
                "keepsock_service_post",
                &(|| unsafe { keepsock_service_post(service, Some(count), user, null_mut()) })
                    as &dyn Fn() -> i32,
            ),
            ("keepsock_conn_post", &|| unsafe {
                keepsock_conn_post(conn, Some(count_conn), user, null_mut())
            }),
        ] {
            let failed = without_allocations_of(64 * 1024, || {
                loop {
                    match post() {
                        KEEPSOCK_OK => accepted += 1,
                        failed => break failed,
                    }
                }
            });
            returned(name, ErrorKind::NoMemory, failed);
            ok(post());
            accepted += 1;
        }
        let timers = without_allocations_of(64 * 1024, || {
            loop {
                let delay = 86_400_000;
                let (e, none) = (null_mut(), null_mut());
                match unsafe {
                    keepsock_service_add_timer(service, delay, 0, Some(never), user, none, e)
                } {
                    KEEPSOCK_OK => {}
                    failed => break failed,
                }
            }
        });
        returned("keepsock_service_add_timer", ErrorKind::NoMemory, timers);
        let listed = without_allocations_of(512, || unsafe {
            keepsock_service_for_each(service, Some(count_conn), user, null_mut())
        });
        returned("keepsock_service_for_each", ErrorKind::NoMemory, listed);
        posted.leave.wait();
        eventually("the functions run", || posted.ran.load(Ordering::SeqCst) == accepted);
        ok(unsafe { keepsock_service_for_each(service, Some(count_conn), user, null_mut()) });
        drop(recording);
        assert_eq!(posted.ran.load(Ordering::SeqCst), accepted + 40);
    });
}
