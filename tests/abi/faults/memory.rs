//! Calls that create an object while the process has no memory for it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use super::*;
use crate::support::{eventually, statuses};

thread_local! {
    /// Allocations of zeroed memory fail in this thread. The slots of objects are such memory.
    static HAS_NO_MEMORY: Cell<bool> = const { Cell::new(false) };
}

/// An allocation of this size or a greater one fails, in any thread of the process.
static FAILING_SIZE: AtomicUsize = AtomicUsize::new(usize::MAX);

/// Whether an allocation fails.
fn fails(size: usize) -> bool {
    size >= FAILING_SIZE.load(Ordering::Relaxed)
}

struct Limited;

// Safety: each function of the system's allocator is called as it was called here.
unsafe impl GlobalAlloc for Limited {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if fails(layout.size()) {
            return null_mut();
        }
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        unsafe { System.dealloc(memory, layout) };
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if fails(layout.size()) || HAS_NO_MEMORY.try_with(Cell::get).unwrap_or(false) {
            return null_mut();
        }
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if fails(size) {
            return null_mut();
        }
        unsafe { System.realloc(memory, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Limited = Limited;

fn without_memory<T>(body: impl FnOnce() -> T) -> T {
    HAS_NO_MEMORY.set(true);
    let result = body();
    HAS_NO_MEMORY.set(false);
    result
}

/// Calls `body` while allocations of `size` bytes and more fail. For a process of its own.
pub(super) fn without_allocations_of<T>(size: usize, body: impl FnOnce() -> T) -> T {
    FAILING_SIZE.store(size, Ordering::Relaxed);
    let result = body();
    FAILING_SIZE.store(usize::MAX, Ordering::Relaxed);
    result
}

/// The descriptors and the threads of this process.
fn resources() -> (usize, usize) {
    let count = |path| std::fs::read_dir(path).unwrap().count();
    (count("/proc/self/fd"), count("/proc/self/task"))
}

/// Creates objects until the process has no memory for the next one. That call must return
/// KEEPSOCK_ERR_NO_MEMORY, leave the output unchanged and keep no descriptor and no thread. With
/// memory the same call must succeed.
fn until_no_memory<T>(
    name: &str,
    free: unsafe extern "C" fn(*mut T),
    mut make: impl FnMut(*mut *mut T) -> i32,
) {
    const CANARY: usize = 0xa5a5_a5a5;
    let mut made = Vec::new();
    loop {
        let mut out = CANARY as *mut T;
        let before = resources();
        let status = without_memory(|| make(&raw mut out));
        if status == KEEPSOCK_OK {
            assert!(!out.is_null(), "{name}: no object, and no error");
            made.push(Handle(out, free));
            assert!(made.len() < 200, "{name}: no call needed memory");
            continue;
        }
        assert_eq!(status, ErrorKind::NoMemory.code(), "{name}");
        assert!(statuses::may_return(name, status, ""), "{name} does not list the status");
        assert_eq!(out as usize, CANARY, "{name}: the output changed");
        eventually(&format!("{name} released its resources"), || resources() <= before);
        break;
    }
    made_again(free, make);
}

fn made_again<T>(free: unsafe extern "C" fn(*mut T), make: impl FnOnce(*mut *mut T) -> i32) {
    drop(made(free, make));
}

/// A2, E2: a call that creates an object returns KEEPSOCK_ERR_NO_MEMORY if there is no memory for
/// the object, and loses neither a descriptor nor an accepted connection.
#[test]
fn creating_objects_without_memory_fails_and_leaks_nothing() {
    let test = test_name!("creating_objects_without_memory_fails_and_leaks_nothing");
    process::in_process(&test, timing::ms(60_000), || {
        let e = null_mut();
        let endpoint = raw_endpoint();
        let endpoint = endpoint.as_ptr();
        until_no_memory("keepsock_options_new", keepsock_options_free, |out| unsafe {
            keepsock_options_new(out, e)
        });
        until_no_memory("keepsock_serve_options_new", keepsock_serve_options_free, |out| unsafe {
            keepsock_serve_options_new(out, e)
        });
        until_no_memory("keepsock_cancel_token_new", keepsock_cancel_token_free, |out| unsafe {
            keepsock_cancel_token_new(out, e)
        });
        until_no_memory("keepsock_reconnect_new", keepsock_reconnect_free, |out| unsafe {
            keepsock_reconnect_new(endpoint, null(), out, e)
        });
        until_no_memory("keepsock_activation_from_env", keepsock_activation_free, |out| unsafe {
            keepsock_activation_from_env(out, e)
        });
        until_no_memory(
            "keepsock_pending_connect_start",
            keepsock_pending_connect_free,
            |out| unsafe { keepsock_pending_connect_start(endpoint, null(), out, e) },
        );
        until_no_memory("keepsock_server_listen", keepsock_server_free, |out| unsafe {
            keepsock_server_listen(ANY_PORT.as_ptr(), null(), out, e)
        });
        until_no_memory("keepsock_server_from_fd", keepsock_server_free, |out| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            from_fd(&listener, |fd| unsafe { keepsock_server_from_fd(fd, null(), out, e) })
        });
        until_no_memory("keepsock_datagram_bind", keepsock_datagram_free, |out| unsafe {
            keepsock_datagram_bind(ANY_PORT.as_ptr(), null(), out, e)
        });
        until_no_memory("keepsock_datagram_from_fd", keepsock_datagram_free, |out| {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            from_fd(&socket, |fd| unsafe { keepsock_datagram_from_fd(fd, null(), out, e) })
        });
        until_no_memory("keepsock_client_connect", keepsock_client_free, |out| unsafe {
            drain();
            keepsock_client_connect(endpoint, null(), out, e)
        });
        drain();
        let stream = || UnixStream::pair().unwrap();
        until_no_memory("keepsock_client_from_fd", keepsock_client_free, |out| {
            from_fd(&stream().0, |fd| unsafe { keepsock_client_from_fd(fd, null(), out, e) })
        });
        accept_without_memory();
        services_without_memory();
    });
}

/// The connection that an accept could not return is returned by the next one.
fn accept_without_memory() {
    let server = server(&[ANY_PORT]);
    let mut accepted = Vec::new();
    loop {
        let client = raw_client(&server);
        let mut out = null_mut();
        let accept = |out: *mut _| unsafe { keepsock_server_accept(server.0, out, null_mut()) };
        let status = without_memory(|| accept(&raw mut out));
        if status == KEEPSOCK_OK {
            assert!(!out.is_null());
            accepted.push(Handle(out, keepsock_client_free));
            assert!(accepted.len() < 200, "no accept needed memory");
            continue;
        }
        assert_eq!((status, out), (ErrorKind::NoMemory.code(), null_mut()));
        ok(accept(&raw mut out));
        let found = Handle(out, keepsock_client_free);
        ok(unsafe { keepsock_client_write_str(found.0, c"hello".as_ptr(), null_mut()) });
        let mut greeting = [0; 5];
        (&client).read_exact(&mut greeting).unwrap();
        assert_eq!(&greeting, b"hello");
        return;
    }
}

unsafe extern "C" fn send_refs(client: *mut keepsock_client, user: *mut c_void) {
    let results = unsafe { &*user.cast::<mpsc::Sender<i32>>() };
    let mut refs = Vec::new();
    loop {
        let mut out = null_mut();
        let status =
            without_memory(|| unsafe { keepsock_client_ref(client, &raw mut out, null_mut()) });
        if status != KEEPSOCK_OK || out.is_null() || refs.len() == 200 {
            return results.send(status).unwrap();
        }
        refs.push(Handle(out, keepsock_client_free));
    }
}

fn services_without_memory() {
    // Freeing a service closes its server.
    let mut servers: Vec<_> = (0..60).map(|_| server(&[ANY_PORT])).collect();
    for (name, events) in [("keepsock_server_serve_events", true), ("keepsock_server_serve", false)]
    {
        let mut used = Vec::new();
        until_no_memory(name, keepsock_service_free, |out| {
            let server = servers.pop().unwrap();
            let status = serve(&server, events, out, null_mut());
            used.push(server);
            status
        });
    }
    drop(servers);
    let socket = socket_at(ANY_PORT);
    until_no_memory("keepsock_datagram_serve", keepsock_datagram_service_free, |out| unsafe {
        let (echo, none) = (Some(echo_datagram as _), null_mut());
        keepsock_datagram_serve(socket.0, null(), echo, none, out, null_mut())
    });
    let (send, results) = mpsc::channel::<i32>();
    let user = (&raw const send).cast_mut().cast();
    let server = server(&[ANY_PORT]);
    let service = made(keepsock_service_free, |out| unsafe {
        keepsock_server_serve(server.0, null(), Some(send_refs), user, out, null_mut())
    });
    let _client = raw_client(&server);
    let status = results.recv_timeout(Duration::from_secs(60)).unwrap();
    assert_eq!(status, ErrorKind::NoMemory.code());
    assert!(statuses::may_return("keepsock_client_ref", status, ""));
    drop(service);
}
