//! `keepsock_inherited`, and handing over.

use std::ffi::{CStr, CString, OsStr, c_char};

use super::client::structures;
use super::handle::{Handle, Pool, Pooled};
use super::{
    Result, c_string, cancel, endpoint, guard, handle, invalid, is_null, keepsock_cancel,
    keepsock_datagram, keepsock_error, keepsock_options, keepsock_server, live, output, text,
    timeout, write_if_wanted,
};
use crate::{HandOver, Inherited};

/// The sockets that a process was started with: by systemd, or another service manager that
/// speaks the same (LISTEN_FDS, sd_listen_fds(3)), or by a predecessor that it replaces
/// (keepsock_hand_over()). keepsock_inherited_listen(), for datagrams keepsock_inherited_bind(), is
/// all that a server needs for three ways to be started: by itself, by socket activation, and as a
/// successor.
///
/// Threads: one at a time.
pub struct keepsock_inherited {
    inherited: Inherited,
    names: Vec<CString>,
}

impl keepsock_inherited {
    fn new(inherited: Inherited) -> keepsock_inherited {
        let names = inherited.names().map(c_string).collect();
        keepsock_inherited { inherited, names }
    }
}

impl Handle for keepsock_inherited {
    const MARK: u32 = 0x6b73_0048;
}

impl Pooled for keepsock_inherited {
    fn pool() -> &'static Pool<Self> {
        static POOL: Pool<keepsock_inherited> = Pool::new();
        &POOL
    }
}

/// What is handed over, and what the successor may ask for it by. It never grows.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct keepsock_handed {
    /// Printable ASCII but ':', at most 255 bytes.
    pub name: *const c_char,
    /// A listening socket, all of its endpoints; or NULL.
    pub server: *const keepsock_server,
    /// A datagram socket, UDP or Unix; or NULL. One of the two is given.
    pub datagram: *const keepsock_datagram,
}

/// # Safety
/// `inherited` is null or a handle that nobody else uses; `error` is null or writable.
unsafe fn with(
    inherited: *mut keepsock_inherited,
    error: *mut *mut keepsock_error,
    operation: &'static str,
    body: impl FnOnce(&mut Inherited) -> Result<()>,
) -> i32 {
    let body = || {
        // SAFETY: as the caller promises.
        let Some(handle) = (unsafe { handle::get_mut(inherited) }) else {
            return Err(super::not_a_handle(inherited, operation, "inherited"));
        };
        let done = body(&mut handle.inherited);
        if handle.names.len() != handle.inherited.names().len() {
            handle.names = handle.inherited.names().map(c_string).collect();
        }
        done
    };
    // SAFETY: as the caller promises.
    unsafe { guard(error, operation, body) }
}

/// Takes the descriptors that the process was started with, once: whoever calls it again gets
/// none. There are none, either, if LISTEN_PID or LISTEN_PIDFDID names another process. The
/// environment stays as it is; the descriptors are kept from programs that this one starts. Call it
/// early: what else was opened meanwhile cannot be told from what was promised. On Windows nothing
/// is inherited.
///
/// @param inherited  Receives them; free it with keepsock_inherited_free().
/// @param error      See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, also if there are none; KEEPSOCK_ERR_INVALID_ARGUMENT: the variables hold
///         something else than numbers, or not as many names as there are descriptors, or one of
///         those is not open. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_inherited_take(
    inherited: *mut *mut keepsock_inherited,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "inherit";
    let body = || {
        let out = output(inherited, OPERATION, "inherited")?;
        let taken = handle::give(keepsock_inherited::new(Inherited::take()?));
        // SAFETY: not null, and writable as the header asks.
        unsafe { out.write(taken) };
        Ok(())
    };
    // SAFETY: null, or writable as the header asks.
    unsafe { guard(error, OPERATION, body) }
}

/// The inherited listening stream socket that is bound to the endpoint, if there is one; else it
/// listens itself, with keepsock_options_set_hand_over(). The options hold for either. "*:80" is
/// a socket that takes IPv4 and IPv6, "[::]:80" one for IPv6 only. Port 0 stands for the port
/// that the system chose for the one who listened first with port 0; of a service manager's sockets
/// none is meant by it. Nor is a Unix socket whose path is another file's now.
///
/// What a predecessor has handed over gets its options in keepsock_inherited_ready(): the listener
/// is the predecessor's, too, and if this process fails, nothing of it has changed. Who connected
/// before has the predecessor's options. A backlog that is not given stays as it was, and so do the
/// mode and the owner of a Unix socket's file, given or not.
///
/// @param inherited  What was inherited.
/// @param endpoint   Where to listen.
/// @param options    Options, copied; NULL for the defaults.
/// @param server     Receives the socket; free it with keepsock_server_free().
/// @param error      See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, or those of keepsock_server_listen() and keepsock_server_from_fd();
///         KEEPSOCK_ERR_WRONG_STATE also if what was inherited there is for packets, and a stream
///         is asked for, or the other way round. What was inherited stays where it is then.
///         Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_inherited_listen(
    inherited: *mut keepsock_inherited,
    endpoint: *const c_char,
    options: *const keepsock_options,
    server: *mut *mut keepsock_server,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "listen";
    let body = |inherited: &mut Inherited| {
        let out = output(server, OPERATION, "server")?;
        // SAFETY: a string as the header asks.
        let endpoint = unsafe { self::endpoint(endpoint, OPERATION) }?;
        // SAFETY: null, or live options as the header asks.
        let options = unsafe { keepsock_options::or_default(options, OPERATION) }?;
        let made = keepsock_server::new(inherited.listen(endpoint, &options)?);
        // SAFETY: not null, and writable as the header asks.
        unsafe { out.write(handle::give(made)) };
        Ok(())
    };
    // SAFETY: as the header asks.
    unsafe { with(inherited, error, OPERATION, body) }
}

/// All inherited listening sockets of a name, as one server: systemd's FileDescriptorName=, or
/// what the predecessor called them. Without a name it is "unknown". Options are set as by
/// keepsock_inherited_listen(). Datagram sockets of that name are passed over and stay, for
/// keepsock_inherited_datagram(): systemd calls all sockets of a unit the same.
///
/// @param inherited  What was inherited.
/// @param name       The name.
/// @param options    Options, copied; NULL for the defaults.
/// @param server     Receives the socket; free it with keepsock_server_free().
/// @param error      See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, KEEPSOCK_ERR_NOT_FOUND (nothing of that name), _WRONG_STATE (one is neither
///         a listening stream socket nor a datagram socket, or all are datagram sockets; the error
///         says what it is), or those of keepsock_server_from_fd(); all stay where they are then.
///         Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_inherited_server(
    inherited: *mut keepsock_inherited,
    name: *const c_char,
    options: *const keepsock_options,
    server: *mut *mut keepsock_server,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "inherit";
    let body = |inherited: &mut Inherited| {
        let out = output(server, OPERATION, "server")?;
        // SAFETY: a string as the header asks.
        let name = unsafe { text(name, OPERATION, "name") }?;
        // SAFETY: null, or live options as the header asks.
        let options = unsafe { keepsock_options::or_default(options, OPERATION) }?;
        let made = keepsock_server::new(inherited.server(name, &options)?);
        // SAFETY: not null, and writable as the header asks.
        unsafe { out.write(handle::give(made)) };
        Ok(())
    };
    // SAFETY: as the header asks.
    unsafe { with(inherited, error, OPERATION, body) }
}

/// The first inherited datagram socket of a name, UDP or Unix; what else has that name is passed
/// over. Its options are set at once: a predecessor, whose socket it is, too, receives with them
/// from now on.
///
/// But what a predecessor has handed over gets keepsock_options_set_coalescing() in
/// keepsock_inherited_ready(): a predecessor that has not asked for it would take several datagrams
/// for one. From then on it does; so ask for it in either process, or have the predecessor stop
/// receiving at once.
///
/// @param inherited  What was inherited.
/// @param name       The name.
/// @param options    Options, copied; NULL for the defaults.
/// @param datagram   Receives the socket; free it with keepsock_datagram_free().
/// @param error      See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, KEEPSOCK_ERR_NOT_FOUND (nothing of that name), _WRONG_STATE (none is a
///         datagram socket; the error says what the first one is), or those of
///         keepsock_datagram_from_fd(); it stays where it is then. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_inherited_datagram(
    inherited: *mut keepsock_inherited,
    name: *const c_char,
    options: *const keepsock_options,
    datagram: *mut *mut keepsock_datagram,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "inherit";
    let body = |inherited: &mut Inherited| {
        let out = output(datagram, OPERATION, "datagram")?;
        // SAFETY: a string as the header asks.
        let name = unsafe { text(name, OPERATION, "name") }?;
        // SAFETY: null, or live options as the header asks.
        let options = unsafe { keepsock_options::or_default(options, OPERATION) }?;
        let made = keepsock_datagram::new(inherited.datagram(name, &options)?);
        // SAFETY: not null, and writable as the header asks.
        unsafe { out.write(handle::give(made)) };
        Ok(())
    };
    // SAFETY: as the header asks.
    unsafe { with(inherited, error, OPERATION, body) }
}

/// The inherited datagram socket, UDP or Unix, that is bound to the endpoint and not connected, if
/// there is one; else it binds one itself, with keepsock_options_set_hand_over(). Which endpoint
/// means which socket is as in keepsock_inherited_listen().
///
/// The options hold for either, as those of keepsock_inherited_datagram() do; a UDP socket that was
/// inherited stays on the interface that it was bound to.
///
/// @param inherited  What was inherited.
/// @param endpoint   Where to receive.
/// @param options    Options, copied; NULL for the defaults.
/// @param datagram   Receives the socket; free it with keepsock_datagram_free().
/// @param error      See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, or those of keepsock_datagram_bind() and keepsock_datagram_from_fd(); what
///         was inherited stays where it is then. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_inherited_bind(
    inherited: *mut keepsock_inherited,
    endpoint: *const c_char,
    options: *const keepsock_options,
    datagram: *mut *mut keepsock_datagram,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "bind";
    let body = |inherited: &mut Inherited| {
        let out = output(datagram, OPERATION, "datagram")?;
        // SAFETY: a string as the header asks.
        let endpoint = unsafe { self::endpoint(endpoint, OPERATION) }?;
        // SAFETY: null, or live options as the header asks.
        let options = unsafe { keepsock_options::or_default(options, OPERATION) }?;
        let made = keepsock_datagram::new(inherited.bind(endpoint, &options)?);
        // SAFETY: not null, and writable as the header asks.
        unsafe { out.write(handle::give(made)) };
        Ok(())
    };
    // SAFETY: as the header asks.
    unsafe { with(inherited, error, OPERATION, body) }
}

/// How many descriptors nobody took yet.
///
/// @param inherited  What was inherited, or NULL: 0.
/// @return Their number. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_inherited_count(inherited: *const keepsock_inherited) -> usize {
    // SAFETY: null, or live as the header asks.
    unsafe { handle::get(inherited) }.map_or(0, |inherited| inherited.names.len())
}

/// The name of one that nobody took yet, in the order of their descriptors.
///
/// @param inherited  What was inherited, or NULL: "".
/// @param index      From 0. "" beyond the last.
/// @return Text that lives until one of them is taken, keepsock_inherited_ready() is called, or the
///         object is freed. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_inherited_name(
    inherited: *const keepsock_inherited,
    index: usize,
) -> *const c_char {
    // SAFETY: null, or live as the header asks.
    let name = unsafe { handle::get(inherited) }.and_then(|i| i.names.get(index));
    name.map_or(c"".as_ptr(), |name| name.as_ptr())
}

/// Tells the predecessor, if there is one, that this process serves, so that it ends; the second
/// time it does nothing. Call it when everything that may fail has succeeded: before, the
/// predecessor goes on as if nothing had been when this process ends, or frees the object.
///
/// Just before that, servers that were taken from a predecessor get their options, and datagram
/// sockets keepsock_options_set_coalescing(). From now on the files of Unix sockets are this
/// process's to remove. What nobody took is closed: clients would
/// connect to it and never be accepted.
///
/// @param inherited  What was inherited.
/// @param error      See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, also if the predecessor is gone; KEEPSOCK_ERR_INVALID_ARGUMENT, _OS, and
///         those of options that the system refuses: the predecessor has heard nothing then.
///         Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_inherited_ready(
    inherited: *mut keepsock_inherited,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: as the header asks.
    unsafe { with(inherited, error, "ready", Inherited::ready) }
}

/// Closes those that nobody took, and frees the object. Freeing NULL does nothing.
///
/// @param inherited  What was inherited, or NULL. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_inherited_free(inherited: *mut keepsock_inherited) {
    // SAFETY: null, or one as the header asks.
    unsafe { handle::free(inherited) };
}

/// Starts a successor of this process, which has the same listening sockets, and waits until it
/// has said keepsock_inherited_ready(). At no moment does nobody listen, so no client is refused.
/// Afterwards both accept; this process is to have its connections finish and to end, and what
/// waits to be accepted the new one takes:
/// @code
/// keepsock_inherited_take(&inherited, &error);
/// keepsock_inherited_listen(inherited, "*:8080", NULL, &server, &error);
/// keepsock_server_serve(server, NULL, handler, NULL, &service, &error);
/// keepsock_inherited_ready(inherited, &error);
/// ... on SIGHUP:
/// keepsock_handed handed = { "http", server, NULL };
/// if (keepsock_hand_over(NULL, &handed, 1, 10000, NULL, NULL, &error) == KEEPSOCK_OK
///   && keepsock_service_finish(service, 5000, &left, &error) == KEEPSOCK_OK)
///   keepsock_service_drain(service, 30000, &finished, &cut, &error);
/// @endcode
///
/// If the new process ends, or is not ready in time, it is killed, the error says why, and this
/// one goes on as if nothing had been. One that has become another user's process cannot be ended,
/// and goes on. Sockets must have been made with
/// keepsock_options_set_hand_over(), or taken over, or come from a keepsock_inherited. Of
/// a Unix socket in the file system the new process owns the file from then on, if this one did.
///
/// The new one is the process that is started, and no other. A script that prepares something has
/// to end with exec, so that the server is that process; a program that goes into the background
/// has ended. What else it starts is not ended with it, and has the sockets as long as it lives if
/// it inherited them: it keeps them listening, though nobody may accept. No signal is blocked in
/// the new one; those that are not ignored, and SIGPIPE, are as by default. Variables are passed
/// on, but systemd's WATCHDOG_PID, which names this process; systemd has to be told (MAINPID= of
/// sd_notify(3)).
///
/// @param argv        The program, a path or a name to be looked for in PATH, and its arguments;
///                    the last pointer is NULL. NULL: this program again, with its arguments; the
///                    file that has its name now, if it was replaced. Of a program that was started
///                    by a symbolic link, that is what the link led to: give the link here if it
///                    may lead elsewhere.
/// @param handed      What is handed over.
/// @param count       How many; at least 1.
/// @param timeout_ms  Milliseconds above 0 for the successor to be ready, or KEEPSOCK_INFINITE. It
///                    and the token hold for all of it, but the system's fork(2).
/// @param cancel      A token that ends the wait, and the successor; or NULL.
/// @param pid         Receives the number of the successor's process, a child of this one; may be
///                    NULL.
/// @param error       See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, KEEPSOCK_ERR_END_OF_STREAM (the successor ended, or gave up what it
///         inherited, before it was ready; the error has its exit status, if it has ended),
///         _TIMED_OUT, _CANCELLED, _NOT_FOUND, _PERMISSION_DENIED (the program cannot be started),
///         _WRONG_STATE (made without keepsock_options_set_hand_over(), or being handed over
///         already), _CLOSED, _INVALID_ARGUMENT, _NO_DESCRIPTORS, _NO_MEMORY, _OS, _UNSUPPORTED
///         (Windows). Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_hand_over(
    argv: *const *const c_char,
    handed: *const keepsock_handed,
    count: usize,
    timeout_ms: i64,
    cancel: *const keepsock_cancel,
    pid: *mut i64,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "hand over";
    let body = || {
        let mut hand_over = HandOver::new();
        if !argv.is_null() {
            // SAFETY: strings, and NULL at the end, as the header asks.
            let mut words = unsafe { words(argv) }.into_iter();
            let program = words.next().ok_or_else(|| is_null(OPERATION, "argv[0]"))?;
            hand_over = words.fold(hand_over.program(program), |h, word| h.arg(word));
        }
        // SAFETY: `count` structures, as the header asks.
        for one in unsafe { structures(handed, count, OPERATION, "handed") }? {
            // SAFETY: a string, as the header asks.
            let name = unsafe { text(one.name, OPERATION, "name") }?;
            if one.server.is_null() == one.datagram.is_null() {
                return Err(invalid(OPERATION, "either a server or a datagram is handed over"));
            }
            hand_over = if one.datagram.is_null() {
                // SAFETY: live, as the header asks.
                hand_over.server(name, unsafe { &live(one.server, OPERATION, "server")?.socket })
            } else {
                // SAFETY: live, as the header asks.
                let datagram = unsafe { live(one.datagram, OPERATION, "datagram") }?;
                hand_over.datagram(name, &datagram.socket)
            };
        }
        let limit = timeout(timeout_ms, OPERATION)?;
        // SAFETY: null, or a live token as the header asks.
        let token = unsafe { cancel::token(cancel, OPERATION) }?;
        let started = hand_over.cancel(token).start(limit)?;
        // SAFETY: null or writable as the header asks.
        unsafe { write_if_wanted(pid, started.into()) };
        Ok(())
    };
    // SAFETY: null, or writable as the header asks.
    unsafe { guard(error, OPERATION, body) }
}

/// # Safety
/// `argv` points to strings, and NULL behind the last.
unsafe fn words<'a>(mut argv: *const *const c_char) -> Vec<&'a OsStr> {
    let mut words = Vec::new();
    // SAFETY: as the caller promises; nothing behind the NULL is read.
    unsafe {
        while !(*argv).is_null() {
            words.push(word(CStr::from_ptr(*argv)));
            argv = argv.add(1);
        }
    }
    words
}

#[cfg(unix)]
fn word(text: &CStr) -> &OsStr {
    std::os::unix::ffi::OsStrExt::from_bytes(text.to_bytes())
}

#[cfg(not(unix))]
fn word(text: &CStr) -> &OsStr {
    OsStr::new(text.to_str().unwrap_or_default())
}
