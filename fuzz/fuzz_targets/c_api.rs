//! Sequences of C functions, in any order, from several threads, with any argument that the headers
//! permit: handles that are live, freed, NULL or of another type, buffers of any size, numbers of
//! any value. The functions come from the headers (build.rs).
//!
//! Each call must return a status of its documentation, with an error object exactly if it fails,
//! and with outputs that are unchanged if it fails. A call with a freed handle must fail. At the end
//! of an input no descriptor is left.
//!
//! Sockets have addresses of the loopback interface and of Unix sockets only. Each wait is limited
//! to some milliseconds.
#![no_main]

use std::cell::{Cell, RefCell};
use std::ffi::{CStr, CString, c_char, c_void};
use std::fs::File;
use std::io::{Read, Write};
use std::mem::{size_of, zeroed};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Mutex, Once, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use keepsock::ffi::{
    keepsock_address, keepsock_attempt, keepsock_buffer, keepsock_callbacks, keepsock_conn,
    keepsock_connection_stats, keepsock_credentials, keepsock_datagram_error,
    keepsock_datagram_info, keepsock_datagram_stats, keepsock_five_tuple, keepsock_framing,
    keepsock_keepalive, keepsock_recv_item, keepsock_segment, keepsock_send_item,
    keepsock_server_stats, keepsock_service_stats, keepsock_slice,
};
use keepsock::fuzzing::Input;

#[allow(clippy::unused_unit, clippy::let_unit_value, clashing_extern_declarations)]
mod calls {
    use super::*;

    include!(concat!(env!("OUT_DIR"), "/calls.rs"));

    type Function = (&'static str, fn(&mut Call), &'static [i32]);

    pub(super) fn all() -> &'static [Function] {
        &FUNCTIONS
    }

    /// The function with the next point after a number.
    pub(super) fn at(number: u16) -> Function {
        let next = POINTS.partition_point(|(point, _)| *point < number);
        FUNCTIONS[POINTS[next % POINTS.len()].1]
    }
}

// The functions that the target itself needs.
unsafe extern "C" {
    fn keepsock_error_status(error: *mut c_void) -> i32;
    fn keepsock_error_message(error: *mut c_void) -> *const c_char;
    fn keepsock_error_free(error: *mut c_void);
    fn keepsock_cancel_token_free(object: *mut c_void);
    fn keepsock_options_free(object: *mut c_void);
    fn keepsock_client_free(object: *mut c_void);
    fn keepsock_server_free(object: *mut c_void);
    fn keepsock_serve_options_free(object: *mut c_void);
    fn keepsock_service_free(object: *mut c_void);
    fn keepsock_reconnect_free(object: *mut c_void);
    fn keepsock_pending_connect_free(object: *mut c_void);
    fn keepsock_pending_lookup_free(object: *mut c_void);
    fn keepsock_datagram_free(object: *mut c_void);
    fn keepsock_datagram_service_free(object: *mut c_void);
    fn keepsock_activation_free(object: *mut c_void);
    fn keepsock_capture_free(object: *mut c_void);
    fn keepsock_handshake_free(object: *mut c_void);
    fn keepsock_options_new(options: *mut c_void, error: *mut c_void) -> i32;
    fn keepsock_options_set_connect_timeout(o: *mut c_void, ms: i64, error: *mut c_void) -> i32;
    fn keepsock_options_set_read_timeout(o: *mut c_void, ms: i64, error: *mut c_void) -> i32;
    fn keepsock_options_set_write_timeout(o: *mut c_void, ms: i64, error: *mut c_void) -> i32;
    fn keepsock_client_set_read_timeout(c: *mut c_void, ms: i64, error: *mut c_void) -> i32;
    fn keepsock_client_set_write_timeout(c: *mut c_void, ms: i64, error: *mut c_void) -> i32;
    fn keepsock_client_set_close_timeout(c: *mut c_void, ms: i64, error: *mut c_void) -> i32;
    fn keepsock_client_write(
        client: *mut c_void,
        buf: *mut c_void,
        len: usize,
        written: *mut c_void,
        error: *mut c_void,
    ) -> i32;
    fn keepsock_client_read(
        client: *mut c_void,
        buf: *mut c_void,
        cap: usize,
        len: *mut c_void,
        error: *mut c_void,
    ) -> i32;
    fn keepsock_server_set_accept_timeout(s: *mut c_void, ms: i64, error: *mut c_void) -> i32;
    fn keepsock_server_port(server: *mut c_void) -> u16;
    fn keepsock_datagram_set_read_timeout(d: *mut c_void, ms: i64, error: *mut c_void) -> i32;
    fn keepsock_datagram_set_write_timeout(d: *mut c_void, ms: i64, error: *mut c_void) -> i32;
    fn keepsock_datagram_five_tuple(
        d: *mut c_void,
        out: *mut c_void,
        size: usize,
        error: *mut c_void,
    ) -> i32;
    fn keepsock_reconnect_set_timeout(r: *mut c_void, ms: i64, error: *mut c_void) -> i32;
    fn keepsock_reconnect_set_backoff(
        r: *mut c_void,
        first_ms: i64,
        longest_ms: i64,
        error: *mut c_void,
    ) -> i32;
    fn keepsock_conn_send(
        conn: keepsock_conn,
        buf: *mut c_void,
        len: usize,
        error: *mut c_void,
    ) -> i32;
    fn keepsock_conn_close(conn: keepsock_conn, error: *mut c_void) -> i32;
    fn keepsock_conn_abort(conn: keepsock_conn, error: *mut c_void) -> i32;
    fn keepsock_conn_pause(conn: keepsock_conn, error: *mut c_void) -> i32;
    fn keepsock_conn_resume(conn: keepsock_conn, error: *mut c_void) -> i32;
    fn keepsock_conn_shutdown_write(conn: keepsock_conn, error: *mut c_void) -> i32;
    fn keepsock_conn_set_timer(conn: keepsock_conn, ms: i64, error: *mut c_void) -> i32;
    fn keepsock_conn_post(
        conn: keepsock_conn,
        function: *mut c_void,
        user: *mut c_void,
        error: *mut c_void,
    ) -> i32;
}

const WRONG_STATE: i32 = keepsock::ErrorKind::WrongState.code();
const PANIC: i32 = keepsock::ErrorKind::Panic.code();

/// The time that a call may wait, in milliseconds.
const WAIT: i64 = 3;

/// The indexes of the types of objects in `KINDS` of build.rs.
const ERROR: usize = 0;
const OPTIONS: usize = 2;
const CLIENT: usize = 3;
const SERVER: usize = 4;
const RECONNECT: usize = 7;
const DATAGRAM: usize = 10;

const FREE: [unsafe extern "C" fn(*mut c_void); 15] = [
    keepsock_error_free,
    keepsock_cancel_token_free,
    keepsock_options_free,
    keepsock_client_free,
    keepsock_server_free,
    keepsock_serve_options_free,
    keepsock_service_free,
    keepsock_reconnect_free,
    keepsock_pending_connect_free,
    keepsock_pending_lookup_free,
    keepsock_datagram_free,
    keepsock_datagram_service_free,
    keepsock_activation_free,
    keepsock_capture_free,
    keepsock_handshake_free,
];

/// The number of objects of each type that an input has at the same time.
const SLOTS: usize = 4;

/// A handle, which may have been freed. A call holds the lock, because a program must not free an
/// object that another thread uses.
type Slot = RwLock<Kept>;

#[derive(Clone, Copy)]
struct Kept {
    handle: usize,
    is_freed: bool,
}

impl Kept {
    const NONE: Kept = Kept { handle: 0, is_freed: false };
}

/// The objects of the process. They are freed after each input.
static POOL: [[Slot; SLOTS]; FREE.len()] =
    [const { [const { RwLock::new(Kept::NONE) }; SLOTS] }; FREE.len()];
/// Connections of event loops, open or ended.
static CONNS: [AtomicU64; 8] = [const { AtomicU64::new(0) }; 8];
/// The ports of listeners and of datagram sockets.
static PORTS: [AtomicU16; 8] = [const { AtomicU16::new(0) }; 8];
/// The other ends of adopted sockets.
static PEERS: Mutex<Vec<OwnedFd>> = Mutex::new(Vec::new());
/// The source of the decisions of callbacks.
static CHOICE: AtomicU64 = AtomicU64::new(0);

libfuzzer_sys::fuzz_target!(|data: &[u8]| run(data));

fn run(data: &[u8]) {
    static START: Once = Once::new();
    START.call_once(|| {
        // The library starts threads and opens descriptors when it needs them first.
        let bytes = (0..32 * calls::all().len()).map(|n| (n * n / 7) as u8);
        sequence(&Vec::from_iter(bytes));
    });
    let before = descriptors();
    sequence(data);
    let since = Instant::now();
    while descriptors() > before {
        let left = || std::fs::read_dir("/proc/self/fd").unwrap().flatten();
        let names = || left().filter_map(|fd| std::fs::read_link(fd.path()).ok());
        let waited = since.elapsed() < Duration::from_secs(20);
        assert!(waited, "{before} descriptors before, now {:?}", names().collect::<Vec<_>>());
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Runs the calls of an input in one to three threads, and frees all objects.
fn sequence(data: &[u8]) {
    let mut input = Input::new(data);
    let threads = 1 + input.below(3);
    CHOICE.store(u64::from_le_bytes(input.array()), Ordering::Relaxed);
    let rest = input.rest();
    std::thread::scope(|scope| {
        for part in rest.chunks(rest.len().div_ceil(threads).max(1)) {
            scope.spawn(move || {
                let mut input = Input::new(part);
                while !input.is_empty() {
                    step(&mut input);
                }
            });
        }
    });
    for (kind, slots) in POOL.iter().enumerate().rev() {
        for slot in slots {
            free(kind, std::mem::replace(&mut *slot.write().unwrap(), Kept::NONE).handle);
        }
    }
    PEERS.lock().unwrap().clear();
    CONNS.iter().for_each(|conn| conn.store(0, Ordering::Relaxed));
    PORTS.iter().for_each(|port| port.store(0, Ordering::Relaxed));
}

fn free(kind: usize, handle: usize) {
    // SAFETY: a free function accepts any handle.
    unsafe { FREE[kind](handle as *mut c_void) };
}

fn step(input: &mut Input) {
    // Some steps are those of a peer, which does not use the library.
    if input.byte() % 16 == 0 {
        return peer(input);
    }
    let (name, function, statuses) = calls::at(u16::from_le_bytes(input.array()));
    let mut call = Call::new(input, name, statuses);
    function(&mut call);
}

/// The peer of an adopted socket sends, receives or closes.
fn peer(input: &mut Input) {
    let mut peers = PEERS.lock().unwrap();
    if peers.is_empty() {
        return;
    }
    let at = input.below(peers.len());
    // Sockets of all kinds send and receive as a Unix stream does, without SIGPIPE. The library must
    // not raise it either: it would end this process.
    let mut stream = UnixStream::from(peers.swap_remove(at));
    let keeps = match input.below(4) {
        0 => stream.write(input.part()).is_ok(),
        1 => stream.write(b"one\ntwo\n").is_ok(),
        2 => stream.read(&mut [0; 4096]).is_ok(),
        _ => false,
    };
    if keeps || input.byte() % 2 == 0 {
        peers.push(stream.into());
    }
}

/// One call: its arguments, which live until it ends, and the check of its result.
struct Call<'a, 'i> {
    input: &'a mut Input<'i>,
    name: &'static str,
    statuses: &'static [i32],
    /// Memory of arguments. Each has exactly the size that the call may use.
    memory: Vec<Box<[u64]>>,
    bytes: Vec<Box<[u8]>>,
    texts: Vec<CString>,
    /// The locks of the objects that the call uses.
    used: Vec<RwLockReadGuard<'static, Kept>>,
    freed: Option<RwLockWriteGuard<'static, Kept>>,
    is_alone: bool,
    /// An argument is a handle that was freed, or one of another type.
    is_invalid: bool,
    /// The length that belongs to the previous argument.
    len: usize,
    size: usize,
    error: Option<Box<Cell<usize>>>,
    created: Option<(usize, Box<Cell<usize>>)>,
    moved: bool,
    connection: Option<Box<Cell<u64>>>,
    /// A descriptor that a successful call owns.
    adopted: Option<OwnedFd>,
    kept: Vec<OwnedFd>,
    peer: Option<OwnedFd>,
    released: Option<Box<Cell<RawFd>>>,
    received: Option<usize>,
}

/// The value of an output before the call.
const UNSET: usize = 0x5a5a_5a5a;

impl<'a, 'i> Call<'a, 'i> {
    fn new(input: &'a mut Input<'i>, name: &'static str, statuses: &'static [i32]) -> Self {
        Call {
            input,
            name,
            statuses,
            memory: Vec::new(),
            bytes: Vec::new(),
            texts: Vec::new(),
            used: Vec::new(),
            freed: None,
            is_alone: true,
            is_invalid: false,
            len: 0,
            size: 0,
            error: None,
            created: None,
            moved: false,
            connection: None,
            adopted: None,
            kept: Vec::new(),
            peer: None,
            released: None,
            received: None,
        }
    }

    // ---- results

    fn ended(&mut self) {}

    /// A text that the library owns.
    fn text(&mut self, text: *const c_char) {
        assert!(!text.is_null(), "{}: NULL", self.name);
        // SAFETY: the library returns text that ends with NUL. The object is still in use.
        let text = unsafe { CStr::from_ptr(text) };
        assert!(text.to_str().is_ok(), "{}: {text:?}", self.name);
    }

    fn status(&mut self, status: i32) {
        let name = self.name;
        let is_known = status == 0 || status == WRONG_STATE || self.statuses.contains(&status);
        let error = self.error.take().map_or(0, |error| error.get());
        let message = || match error {
            0 => String::new(),
            // SAFETY: the object is live.
            error => unsafe { CStr::from_ptr(keepsock_error_message(error as *mut c_void)) }
                .to_string_lossy()
                .into_owned(),
        };
        assert!(status != 0 || !self.is_invalid, "{name}: it accepted an invalid handle");
        assert!(status != PANIC, "{name}: panic: {}", message());
        assert!(is_known, "{name}: status {status} is not documented: {}", message());
        if error != 0 {
            assert!(status != 0, "{name}: an error object, but the call succeeded");
            // SAFETY: the object is live.
            let of_error = unsafe { keepsock_error_status(error as *mut c_void) };
            assert_eq!(of_error, status, "{name}: {}", message());
            let text = message();
            assert!(!text.chars().any(char::is_control), "{name}: {text:?}");
            store(ERROR, error);
        }
        if let Some((kind, out)) = self.created.take() {
            match (status, out.get()) {
                (0, UNSET) => assert!(self.moved, "{name}: no object"),
                (0, 0) => assert!(self.moved, "{name}: no object"),
                (0, handle) => {
                    limit_waits(kind, handle);
                    store(kind, handle);
                }
                (_, handle) if self.moved && self.is_invalid => free(kind, handle),
                (_, handle) if self.moved => store(kind, handle),
                (_, handle) => assert_eq!(handle, UNSET, "{name}: status {status} with an object"),
            }
        }
        if status == 0 {
            if let Some(id) = self.connection.take().map(|id| id.get()) {
                CONNS[(id % 8) as usize].store(id, Ordering::Relaxed);
            }
            // The library owns the descriptor now.
            if let Some(adopted) = self.adopted.take() {
                let _ = adopted.into_raw_fd();
            }
            if let Some(peer) = self.peer.take() {
                let mut peers = PEERS.lock().unwrap();
                if peers.len() < 8 {
                    peers.push(peer);
                }
            }
            if let Some(fd) = self.released.take().map(|fd| fd.get()) {
                assert!(fd >= 0, "{name}: {fd}");
                // SAFETY: the program owns the released descriptor.
                drop(unsafe { OwnedFd::from_raw_fd(fd) });
            }
        }
        if let Some(at) = self.received.take() {
            let fds: &[u64] = &self.memory[at];
            // SAFETY: the memory consists of whole integers.
            let fds =
                unsafe { std::slice::from_raw_parts(fds.as_ptr().cast::<i32>(), fds.len() * 2) };
            for fd in fds.iter().filter(|fd| **fd >= 0) {
                // SAFETY: the program owns the received descriptors; others are negative.
                drop(unsafe { OwnedFd::from_raw_fd(*fd) });
            }
        }
    }

    // ---- objects

    fn error(&mut self) -> *mut c_void {
        if self.input.byte() % 8 == 0 {
            return null_mut();
        }
        let cell = self.error.insert(Box::new(Cell::new(0)));
        cell.as_ptr().cast()
    }

    /// A handle: mostly one of the right type, live or freed.
    fn handle(&mut self, kind: usize) -> *mut c_void {
        let choice = self.input.byte();
        let given = match choice % 32 {
            0 => return null_mut(),
            1 => return self.number() as *mut c_void,
            2 => self.input.below(FREE.len()),
            _ => kind,
        };
        let slots = &POOL[given];
        for n in 0..SLOTS {
            let slot = &slots[(usize::from(choice >> 5) + n) % SLOTS];
            let Ok(guard) = slot.try_read() else {
                continue;
            };
            let Kept { handle, is_freed } = *guard;
            if handle != 0 {
                self.is_invalid |= is_freed || given != kind;
                self.used.push(guard);
                return handle as *mut c_void;
            }
        }
        null_mut()
    }

    /// A handle for a function that frees it. No other call may use the object.
    fn taken(&mut self, kind: usize) -> *mut c_void {
        let slot = &POOL[kind][self.input.below(SLOTS)];
        match slot.try_write() {
            Ok(mut guard) => {
                guard.is_freed = true;
                let handle = guard.handle;
                self.freed = Some(guard);
                handle as *mut c_void
            }
            Err(_) => {
                self.is_alone = false;
                null_mut()
            }
        }
    }

    fn is_alone(&self) -> bool {
        self.is_alone
    }

    /// Options for a call that may wait are never the defaults, whose timeouts are too long.
    fn options(&mut self, function: &str) -> *mut c_void {
        let options = self.handle(OPTIONS);
        let waits = ["connect", "lookup"].iter().any(|word| function.contains(word));
        if !options.is_null() || !waits {
            return options;
        }
        static SHORT: Mutex<usize> = Mutex::new(0);
        let mut short = SHORT.lock().unwrap();
        if *short == 0 {
            let mut handle: *mut c_void = null_mut();
            // SAFETY: a valid output.
            assert_eq!(unsafe { keepsock_options_new((&raw mut handle).cast(), null_mut()) }, 0);
            limit_waits(OPTIONS, handle as usize);
            *short = handle as usize;
        }
        *short as *mut c_void
    }

    fn created(&mut self, kind: usize) -> *mut c_void {
        if self.input.byte() % 16 == 0 {
            return null_mut();
        }
        let (_, cell) = self.created.insert((kind, Box::new(Cell::new(UNSET))));
        cell.as_ptr().cast()
    }

    /// An object that a successful call takes from its variable.
    fn moved(&mut self, kind: usize) -> *mut c_void {
        if self.input.byte() % 16 == 0 {
            return null_mut();
        }
        let taken = POOL[kind][self.input.below(SLOTS)].try_write();
        let taken = taken.map(|mut guard| std::mem::replace(&mut *guard, Kept::NONE));
        let Kept { handle, is_freed } = taken.unwrap_or(Kept::NONE);
        self.is_invalid |= is_freed;
        self.moved = true;
        let (_, cell) = self.created.insert((kind, Box::new(Cell::new(handle))));
        cell.as_ptr().cast()
    }

    fn conn(&mut self) -> keepsock_conn {
        let id = match self.input.byte() {
            0..=7 => self.number(),
            n => CONNS[usize::from(n) % CONNS.len()].load(Ordering::Relaxed),
        };
        keepsock_conn { id }
    }

    fn conn_out(&mut self) -> *mut c_void {
        if self.bit() {
            return null_mut();
        }
        self.connection.insert(Box::new(Cell::new(0))).as_ptr().cast()
    }

    // ---- numbers

    fn number(&mut self) -> u64 {
        self.input.number()
    }

    fn small(&mut self) -> i32 {
        match self.input.byte() {
            n @ 0..=239 => i32::from(n % 24) - 2,
            _ => self.number() as i32,
        }
    }

    fn bit(&mut self) -> bool {
        self.input.byte() % 2 == 0
    }

    fn wait(&mut self) -> i64 {
        self.input.one_of(&[0, 1, WAIT, WAIT, -2, i64::MIN])
    }

    fn threads(&mut self) -> u32 {
        self.input.byte() as u32 % 4
    }

    fn port(&mut self) -> u16 {
        PORTS[self.input.below(PORTS.len())].load(Ordering::Relaxed)
    }

    fn length(&mut self) -> usize {
        self.len
    }

    fn size(&mut self) -> usize {
        self.size
    }

    /// Options of the kernel that change no other socket and cause no wait.
    fn raw_level(&mut self) -> i32 {
        self.input.one_of(&[1, 6, -1])
    }

    fn raw_name(&mut self) -> i32 {
        // SO_DEBUG, SO_KEEPALIVE, TCP_QUICKACK, an unknown option.
        self.input.one_of(&[1, 9, 12, 1000])
    }

    // ---- memory

    fn zeroed(&mut self, size: usize) -> *mut c_void {
        let mut memory = vec![0_u64; size.div_ceil(8)].into_boxed_slice();
        let pointer = memory.as_mut_ptr();
        self.memory.push(memory);
        pointer.cast()
    }

    fn put<T>(&mut self, value: T) -> *mut c_void {
        let pointer = self.zeroed(size_of::<T>());
        // SAFETY: the memory has the size and a sufficient alignment.
        unsafe { pointer.cast::<T>().write(value) };
        pointer
    }

    fn number_out(&mut self) -> *mut c_void {
        if self.input.byte() % 8 == 0 {
            return null_mut();
        }
        self.zeroed(8)
    }

    fn structure_out<T>(&mut self) -> *mut c_void {
        if self.input.byte() % 16 == 0 {
            return null_mut();
        }
        self.zeroed(size_of::<T>())
    }

    /// A structure with its size, which may be that of another version.
    fn sized_out<T>(&mut self) -> *mut c_void {
        self.size = match self.input.byte() {
            0 => return null_mut(),
            1..=31 => self.input.below(64),
            32..=63 => size_of::<T>() + 8 * self.input.below(8),
            _ => size_of::<T>(),
        };
        self.zeroed(self.size)
    }

    fn byte_room(&mut self, len: usize) -> *mut u8 {
        let mut bytes = vec![0_u8; len].into_boxed_slice();
        let pointer = bytes.as_mut_ptr();
        self.bytes.push(bytes);
        pointer
    }

    fn room(&mut self) -> *mut c_void {
        let len = self.input.one_of(&[0, 1, 7, 64, 4096, 70_000]);
        self.len = len;
        match self.input.byte() {
            0..=7 => null_mut(),
            _ => self.byte_room(len).cast(),
        }
    }

    fn bytes(&mut self) -> *mut c_void {
        if self.input.byte() % 16 == 0 {
            self.len = self.input.below(3);
            return null_mut();
        }
        let given = self.input.part().to_vec();
        let long = self.input.byte() > 240;
        let given = if long { given.repeat(1000) } else { given };
        self.len = given.len();
        let room = self.byte_room(given.len());
        // SAFETY: the room has the length.
        unsafe { room.copy_from(given.as_ptr(), given.len()) };
        room.cast()
    }

    fn list<T>(&mut self, make: impl Fn(&mut Self) -> T) -> *mut c_void {
        let count = self.input.below(5);
        self.len = count;
        if self.input.byte() % 16 == 0 {
            return null_mut();
        }
        let room = self.zeroed(count * size_of::<T>());
        for n in 0..count {
            let value = make(self);
            // SAFETY: the room has `count` elements.
            unsafe { room.cast::<T>().add(n).write(value) };
        }
        self.len = count;
        room
    }

    fn slices(&mut self) -> *mut c_void {
        self.list(|c| keepsock_slice { buf: c.bytes(), len: c.len })
    }

    fn buffers(&mut self) -> *mut c_void {
        self.list(|c| keepsock_buffer { buf: c.room(), cap: c.len })
    }

    fn cpus(&mut self) -> *mut c_void {
        self.list(|c| c.input.one_of(&[0_u32, 0, 1, 99_999]))
    }

    fn addresses(&mut self) -> *mut c_void {
        // SAFETY: every bit pattern is valid.
        self.list(|_| unsafe { zeroed::<keepsock_address>() })
    }

    fn endpoints(&mut self) -> *mut c_void {
        self.list(Self::endpoint)
    }

    fn send_items(&mut self) -> *mut c_void {
        self.size = size_of::<keepsock_send_item>();
        self.list(|c| keepsock_send_item {
            buf: c.bytes(),
            len: c.len,
            reply_to: if c.input.byte() % 4 == 0 { c.info().cast() } else { null_mut() },
            to: c.an_address(),
            local: c.local_address(),
            interface_index: c.input.one_of(&[0, 0, 1]),
            reserved: c.input.one_of(&[0, 0, 0, 1]),
        })
    }

    fn recv_items(&mut self) -> *mut c_void {
        self.size = size_of::<keepsock_recv_item>();
        // SAFETY: every bit pattern is valid.
        self.list(|c| keepsock_recv_item { buf: c.room(), cap: c.len, info: unsafe { zeroed() } })
    }

    // ---- texts

    fn own_text(&mut self, text: &str) -> *mut c_void {
        let text = CString::new(text.replace('\0', "")).unwrap();
        let pointer = text.as_ptr();
        self.texts.push(text);
        pointer.cast_mut().cast()
    }

    fn one_text(&mut self, texts: &[&str]) -> *mut c_void {
        let choice = self.input.byte();
        match choice {
            0..=7 => null_mut(),
            n => self.own_text(texts[usize::from(n) % texts.len()]),
        }
    }

    /// An endpoint on this machine that needs no lookup, or text that is not an endpoint.
    fn endpoint(&mut self) -> *mut c_void {
        let (port, pid) = (self.port(), std::process::id());
        let path = std::env::temp_dir().join(format!("keepsock-fuzz-{pid}.sock"));
        let texts = [
            "127.0.0.1:0".to_owned(),
            "[::1]:0".to_owned(),
            "localhost:0".to_owned(),
            format!("127.0.0.1:{port}"),
            format!("127.0.0.1:{port}"),
            format!("[::1]:{port}"),
            format!("localhost:{port}"),
            format!("unix:@keepsock-fuzz-{pid}-1"),
            format!("unix:@keepsock-fuzz-{pid}-1"),
            format!("unix:@keepsock-fuzz-{pid}-2"),
            format!("unix:{}", path.display()),
            "unix:/absent/x.sock".to_owned(),
            "127.0.0.1:99999".to_owned(),
            "::1:80".to_owned(),
            "unix:".to_owned(),
            "\u{202e}:80".to_owned(),
            String::new(),
        ];
        self.one_text(&texts.each_ref().map(String::as_str))
    }

    fn host(&mut self) -> *mut c_void {
        self.one_text(&["127.0.0.1", "::1", "localhost", "[::1]", "", "a:b", "::1%e]:80"])
    }

    fn group_name(&mut self) -> *mut c_void {
        self.one_text(&["one", "two", ""])
    }

    /// Multicast must not leave this machine, so the default interface is not used.
    fn interface(&mut self) -> *mut c_void {
        let name = self.input.one_of(&["lo", "lo", "absent", "", "a\nb"]);
        self.own_text(name)
    }

    fn network(&mut self) -> *mut c_void {
        self.one_text(&["127.0.0.0/8", "::1", "10.0.0.0/8", "::/0", "::/1", "x", "1.2.3.4/33"])
    }

    fn name(&mut self) -> *mut c_void {
        let given = self.input.text();
        match self.input.byte() {
            0..=7 => null_mut(),
            8..=63 => self.own_text("reno"),
            _ => self.own_text(&given),
        }
    }

    // ---- structures that the library reads

    fn an_address(&mut self) -> keepsock_address {
        // SAFETY: every bit pattern is valid.
        let mut address: keepsock_address = unsafe { zeroed() };
        address.port = self.port();
        match self.input.byte() % 16 {
            0 => address.family = 0,
            1 => address.family = 77,
            2 => address.family = 1,
            3..=5 => {
                address.family = 6;
                address.ip[15] = 1;
            }
            _ => {
                address.family = 4;
                address.ip[..4].copy_from_slice(&[127, 0, 0, 1]);
            }
        }
        address
    }

    fn local_address(&mut self) -> keepsock_address {
        let mut address = self.an_address();
        if self.input.byte() % 2 == 0 {
            address.family = 0;
        }
        address
    }

    fn address(&mut self) -> *mut c_void {
        if self.input.byte() % 16 == 0 {
            return null_mut();
        }
        let address = self.an_address();
        self.put(address)
    }

    fn multicast(&mut self) -> *mut c_void {
        let mut address = self.an_address();
        if self.input.byte() % 4 > 0 {
            address.family = 4;
            address.port = 0;
            address.ip[..4].copy_from_slice(&[239, 1, 2, 3]);
        }
        self.put(address)
    }

    fn info(&mut self) -> *mut c_void {
        if self.input.byte() % 16 == 0 {
            return null_mut();
        }
        // SAFETY: every bit pattern is valid.
        let mut info: keepsock_datagram_info = unsafe { zeroed() };
        (info.from, info.local) = (self.an_address(), self.local_address());
        info.unix_name_len = self.input.byte().into();
        let name = format!("\0keepsock-fuzz-{}-1", std::process::id());
        info.unix_name[..name.len()].copy_from_slice(name.as_bytes());
        self.put(info)
    }

    fn five_tuple(&mut self) -> *mut c_void {
        self.size = size_of::<keepsock_five_tuple>();
        // SAFETY: every bit pattern is valid.
        let mut tuple: keepsock_five_tuple = unsafe { zeroed() };
        (tuple.local_port, tuple.remote_port) = (self.port(), self.port());
        for field in [&mut tuple.local_address, &mut tuple.remote_address] {
            field.iter_mut().zip(b"127.0.0.1").for_each(|(c, byte)| *c = *byte as c_char);
        }
        tuple.protocol = self.small();
        self.put(tuple)
    }

    fn framing(&mut self) -> *mut c_void {
        if self.input.byte() % 16 == 0 {
            return null_mut();
        }
        // SAFETY: every bit pattern is valid.
        let mut framing: keepsock_framing = unsafe { zeroed() };
        framing.size = size_of::<keepsock_framing>();
        framing.kind = self.input.below(8) as i32 - 1;
        framing.length_format = self.input.below(13) as i32 - 1;
        framing.delimiter = self.input.byte();
        framing.max = self.number() as usize;
        framing.len = if self.bit() { self.number() as usize } else { 0 };
        framing.length_offset = if self.bit() { self.input.below(8) } else { 0 };
        framing.length_adjustment = if self.bit() { self.small() } else { 0 };
        self.put(framing)
    }

    // ---- descriptors

    /// A descriptor to adopt: a socket of any kind, or another file. The program keeps the other
    /// end.
    fn adopted_fd(&mut self) -> i32 {
        let (own, peer): (OwnedFd, Option<OwnedFd>) = match self.input.below(8) {
            0 => {
                let (own, peer) = UnixDatagram::pair().unwrap();
                peer.set_nonblocking(true).unwrap();
                (own.into(), Some(peer.into()))
            }
            1 => (UdpSocket::bind("127.0.0.1:0").unwrap().into(), None),
            2 => (TcpListener::bind("127.0.0.1:0").unwrap().into(), None),
            3 => (File::open("/dev/null").unwrap().into(), None),
            4 => {
                let listener = TcpListener::bind("127.0.0.1:0").unwrap();
                let own = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
                let (peer, _) = listener.accept().unwrap();
                peer.set_nonblocking(true).unwrap();
                (own.into(), Some(peer.into()))
            }
            5 => return self.input.one_of(&[-1, i32::MAX, i32::MIN]),
            _ => {
                let (own, peer) = UnixStream::pair().unwrap();
                peer.set_nonblocking(true).unwrap();
                (own.into(), Some(peer.into()))
            }
        };
        self.peer = peer;
        self.adopted.insert(own).as_raw_fd()
    }

    /// A file that the caller keeps.
    fn file(&mut self) -> i32 {
        let path = self.input.one_of(&["/proc/self/exe", "/dev/null", "/proc/self/maps", ""]);
        match File::open(path) {
            Ok(file) => {
                self.kept.push(file.into());
                self.kept[self.kept.len() - 1].as_raw_fd()
            }
            Err(_) => -1,
        }
    }

    fn passed_fds(&mut self) -> *mut c_void {
        self.list(Self::file)
    }

    fn received_fds(&mut self) -> *mut c_void {
        let count = self.input.below(5);
        self.len = count;
        let room = self.zeroed(count * size_of::<RawFd>());
        let at = self.memory.len() - 1;
        self.memory[at].fill(u64::MAX);
        self.received = Some(at);
        room
    }

    fn released_fd(&mut self) -> *mut c_void {
        if self.input.byte() % 16 == 0 {
            return null_mut();
        }
        self.released.insert(Box::new(Cell::new(-1))).as_ptr().cast()
    }

    // ---- callbacks

    fn user(&mut self) -> *mut c_void {
        self.input.one_of(&[0_usize, 8]) as *mut c_void
    }

    fn function(&mut self, function: *mut c_void) -> *mut c_void {
        if self.input.byte() % 16 == 0 { null_mut() } else { function }
    }

    fn conn_callback(&mut self) -> *mut c_void {
        self.function(on_conn as *mut c_void)
    }

    fn datagram_handler(&mut self) -> *mut c_void {
        self.function(on_datagram as *mut c_void)
    }

    fn handler(&mut self) -> *mut c_void {
        self.function(on_client as *mut c_void)
    }

    fn log_callback(&mut self) -> *mut c_void {
        self.function(on_log as *mut c_void)
    }

    fn on_retry(&mut self) -> *mut c_void {
        self.function(on_retry as *mut c_void)
    }

    fn on_timeout(&mut self) -> *mut c_void {
        self.function(on_timeout as *mut c_void)
    }

    fn on_watch(&mut self) -> *mut c_void {
        self.function(on_watch as *mut c_void)
    }

    fn service_callback(&mut self) -> *mut c_void {
        self.function(on_service as *mut c_void)
    }

    fn timer_callback(&mut self) -> *mut c_void {
        self.function(on_timer as *mut c_void)
    }

    fn callbacks(&mut self) -> *mut c_void {
        if self.input.byte() % 16 == 0 {
            return null_mut();
        }
        let given = self.input.byte();
        // SAFETY: every callback may be NULL.
        let mut callbacks: keepsock_callbacks = unsafe { zeroed() };
        callbacks.size = size_of::<keepsock_callbacks>();
        callbacks.on_open = (given & 1 == 0).then_some(on_conn);
        callbacks.on_data = (given & 2 == 0).then_some(on_data);
        callbacks.on_writable = (given & 4 == 0).then_some(on_conn);
        callbacks.on_eof = (given & 8 == 0).then_some(on_conn);
        callbacks.on_timer = (given & 16 == 0).then_some(on_conn);
        callbacks.on_drain = (given & 32 == 0).then_some(on_conn);
        callbacks.on_close = (given & 64 == 0).then_some(on_close);
        self.put(callbacks)
    }
}

/// Keeps an object for later calls. The object that it replaces is freed.
fn store(kind: usize, handle: usize) {
    thread_local!(static NEXT: RefCell<usize> = const { RefCell::new(0) });
    let first = NEXT.with_borrow_mut(|next| {
        *next += 1;
        *next
    });
    for n in 0..SLOTS {
        if let Ok(mut slot) = POOL[kind][(first + n) % SLOTS].try_write() {
            let kept = Kept { handle, is_freed: false };
            return free(kind, std::mem::replace(&mut *slot, kept).handle);
        }
    }
    free(kind, handle);
}

/// Limits the waits of a new object, and keeps its port.
fn limit_waits(kind: usize, handle: usize) {
    let object = handle as *mut c_void;
    let none = null_mut();
    let mut port = 0;
    // SAFETY: the object is live, and no other thread knows it.
    unsafe {
        match kind {
            OPTIONS => {
                keepsock_options_set_connect_timeout(object, WAIT, none);
                keepsock_options_set_read_timeout(object, WAIT, none);
                keepsock_options_set_write_timeout(object, WAIT, none);
            }
            CLIENT => {
                keepsock_client_set_read_timeout(object, WAIT, none);
                keepsock_client_set_write_timeout(object, WAIT, none);
                keepsock_client_set_close_timeout(object, WAIT, none);
            }
            SERVER => {
                keepsock_server_set_accept_timeout(object, WAIT, none);
                port = keepsock_server_port(object);
            }
            RECONNECT => {
                keepsock_reconnect_set_timeout(object, WAIT, none);
                keepsock_reconnect_set_backoff(object, 1, 2, none);
            }
            DATAGRAM => {
                keepsock_datagram_set_read_timeout(object, WAIT, none);
                keepsock_datagram_set_write_timeout(object, WAIT, none);
                let mut tuple: keepsock_five_tuple = zeroed();
                let size = size_of::<keepsock_five_tuple>();
                keepsock_datagram_five_tuple(object, (&raw mut tuple).cast(), size, none);
                port = tuple.local_port;
            }
            _ => {}
        }
    }
    if port != 0 {
        let at = usize::from(port) % PORTS.len();
        PORTS[at].store(port, Ordering::Relaxed);
    }
}

// ---- callbacks

/// The next number of a sequence that the input starts.
fn choice() -> u64 {
    let next = CHOICE.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
    (next ^ (next >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 32
}

/// Calls functions for a connection from its event loop.
unsafe extern "C" fn on_conn(conn: keepsock_conn, _: *mut c_void) {
    let none = null_mut();
    for _ in 0..choice() % 3 {
        CONNS[(conn.id % 8) as usize].store(conn.id, Ordering::Relaxed);
        // SAFETY: the id is a number, and the bytes live until the call returns.
        unsafe {
            match choice() % 10 {
                0 => keepsock_conn_close(conn, none),
                1 => keepsock_conn_abort(conn, none),
                2 => keepsock_conn_pause(conn, none),
                3 => keepsock_conn_resume(conn, none),
                4 => keepsock_conn_shutdown_write(conn, none),
                5 => keepsock_conn_set_timer(conn, (choice() % 3) as i64, none),
                6 => keepsock_conn_post(conn, on_posted as *mut c_void, none, none),
                n => keepsock_conn_send(conn, [7_u8; 64].as_mut_ptr().cast(), n as usize * 7, none),
            };
        }
    }
}

unsafe extern "C" fn on_posted(conn: keepsock_conn, user: *mut c_void) {
    // SAFETY: as the caller promises. A posted function seldom posts again.
    unsafe { on_conn(conn, user) };
}

unsafe extern "C" fn on_data(
    conn: keepsock_conn,
    buf: *const c_void,
    len: usize,
    user: *mut c_void,
) {
    // SAFETY: the library lends the bytes. Reading them shows whether they are valid.
    let bytes = unsafe { std::slice::from_raw_parts(buf.cast::<u8>(), len) };
    std::hint::black_box(bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)));
    // SAFETY: as the caller promises.
    unsafe { on_conn(conn, user) };
}

unsafe extern "C" fn on_close(conn: keepsock_conn, _: i32, user: *mut c_void) {
    // SAFETY: as the caller promises.
    unsafe { on_conn(conn, user) };
}

unsafe extern "C" fn on_client(client: *mut c_void, _: *mut c_void) {
    limit_waits(CLIENT, client as usize);
    let mut len = 0_usize;
    let len: *mut c_void = (&raw mut len).cast();
    // SAFETY: the client lives until the handler returns.
    unsafe {
        for _ in 0..choice() % 3 {
            let hello = b"hello\n".as_ptr().cast_mut().cast();
            keepsock_client_write(client, hello, 6, len, null_mut());
            let mut room = [0_u8; 100];
            keepsock_client_read(client, room.as_mut_ptr().cast(), 100, len, null_mut());
        }
    }
}

unsafe extern "C" fn on_datagram(
    _: *mut c_void,
    info: *const keepsock_datagram_info,
    buf: *const c_void,
    len: usize,
    _: *mut c_void,
) {
    // SAFETY: the library lends both.
    let (bytes, info) = unsafe { (std::slice::from_raw_parts(buf.cast::<u8>(), len), &*info) };
    assert!(info.len >= bytes.len());
    std::hint::black_box(bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)));
}

unsafe extern "C" fn on_log(
    level: i32,
    target: *const c_char,
    message: *const c_char,
    _: *mut c_void,
) {
    // SAFETY: the library lends both texts.
    let (target, message) = unsafe { (CStr::from_ptr(target), CStr::from_ptr(message)) };
    let text = message.to_str().unwrap();
    assert!(!text.chars().any(char::is_control), "{level} {target:?}: {text:?}");
}

unsafe extern "C" fn on_retry(error: *const c_void, _: u32, wait_ms: i64, _: *mut c_void) {
    // SAFETY: the library lends the error.
    assert!(unsafe { keepsock_error_status(error.cast_mut()) } < 0 && wait_ms >= 0);
}

unsafe extern "C" fn on_timeout(_: i64, _: *mut c_void) {}

unsafe extern "C" fn on_watch(_: i32, _: i32, _: *mut c_void) {}

unsafe extern "C" fn on_service(_: *mut c_void) {}

unsafe extern "C" fn on_timer(_: u64, _: *mut c_void) {}
