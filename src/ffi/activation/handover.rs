//! Handover of sockets to a successor process.

use std::ffi::{CStr, OsStr, c_char};

// The structure has the member without the feature as well, because it is part of the ABI.
#[cfg(not(feature = "datagram"))]
use std::ffi::c_void as keepsock_datagram;

use crate::Handover;
#[cfg(feature = "datagram")]
use crate::ffi::keepsock_datagram;
use crate::ffi::{
    Array, ErrorOut, Handle, Optional, Ref, Result, Text, call, invalid, keepsock_cancel_token,
    keepsock_error, keepsock_server, null, timeout,
};

/// A socket for the successor, and the name under which it requests the socket. Later versions
/// add no members.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct keepsock_handover_item {
    /// 1 to 255 bytes of printable ASCII without ':'.
    pub name: *const c_char,
    /// A server with all of its endpoints, or NULL.
    pub server: *const keepsock_server,
    /// A datagram socket, or NULL. One of the two is set.
    pub datagram: *const keepsock_datagram,
}

/// Starts a successor of this process, passes listening sockets to it, and waits until it is ready.
///
/// The socket listens without interruption, so no client is refused. After
/// keepsock_activation_ready() in the successor, both processes accept. This process should then
/// drain its connections and exit; the successor accepts the connections that are in the listen
/// queue.
///
/// @code
/// keepsock_activation *activation = NULL;
/// keepsock_server *server = NULL;
/// keepsock_service *service = NULL;
/// int started = keepsock_activation_from_env(&activation, NULL) == KEEPSOCK_OK
///     && keepsock_activation_listen(activation, "*:8080", NULL, &server, NULL) == KEEPSOCK_OK
///     && keepsock_server_serve(server, NULL, handler, NULL, &service, NULL) == KEEPSOCK_OK
///     && keepsock_activation_ready(activation, NULL) == KEEPSOCK_OK;
/// // When a new version takes over, for example on SIGHUP:
/// keepsock_handover_item item = {"http", server, NULL};
/// if (started && keepsock_handover_start(NULL, &item, 1, 10000, NULL, NULL, NULL) == KEEPSOCK_OK) {
///     keepsock_service_stop(service, NULL);
///     keepsock_service_wait(service, 5000, NULL);
///     keepsock_service_drain(service, 30000, NULL, NULL, NULL);
/// }
/// @endcode
///
/// The sockets must have keepsock_options_set_handover(), or be adopted or inherited. If this
/// process owns the file of a Unix socket, the successor owns it from then on. If the successor
/// exits or is not ready in time, the library kills it, the error says why, and this process
/// continues as before. Connections that a killed successor accepted are reset. A successor that
/// runs as another user cannot be killed, and continues; the error says so.
///
/// The successor is exactly the started process. A script that prepares something must end with
/// exec. A program that forks into the background counts as exited. Other processes that the
/// successor starts are not killed with it. If they inherit the sockets, the sockets listen until
/// these processes exit, although they may not accept.
///
/// In the successor no signal is blocked, and all signals that this process does not ignore, and
/// SIGPIPE, have their default disposition. The environment is inherited except WATCHDOG_PID of
/// systemd, which names this process. Notify systemd of the new process (MAINPID= of sd_notify(3)).
///
/// @param argv        The program, a path or a name to search in PATH, and its arguments; the last
///                    pointer is NULL. NULL starts this program again with its original arguments,
///                    also if it has overwritten them (setproctitle); this needs glibc, and no
///                    dlopen(3) after they were overwritten. It starts the file that now has the
///                    program's name. If the program was started by a symbolic link, that is the
///                    file that the link named: pass the link here if it may name another file now.
/// @param items       The sockets.
/// @param count       The number of sockets, at least 1.
/// @param timeout_ms  The time for the successor to be ready: milliseconds, greater than 0, or
///                    KEEPSOCK_INFINITE. It does not cover fork(2).
/// @param cancel      A token that ends the wait and the successor. NULL for none.
/// @param pid         Receives the process ID of the successor, a child of this process.
/// @param error       If the successor exited, the message has its exit status.
/// @return KEEPSOCK_OK if the successor is ready, otherwise
///   - KEEPSOCK_ERR_END_OF_STREAM: the successor exited, or freed its activation, before it was
///     ready
///   - KEEPSOCK_ERR_MALFORMED: the successor, or a process that it started, wrote other bytes to
///     the socket of the handover than keepsock_activation_ready() does
///   - KEEPSOCK_ERR_TIMED_OUT: the successor was not ready in time
///   - KEEPSOCK_ERR_CANCELLED: the cancel token was fired
///   - KEEPSOCK_ERR_NOT_FOUND: the program does not exist
///   - KEEPSOCK_ERR_PERMISSION_DENIED: the program cannot be executed
///   - KEEPSOCK_ERR_WRONG_STATE: a socket lacks keepsock_options_set_handover(), or its handover
///     is in progress
///   - KEEPSOCK_ERR_CLOSED: a socket is closed
///   - KEEPSOCK_ERR_NO_DESCRIPTORS: the process or the system has no free descriptor
///   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory, or cannot create a process
///   - KEEPSOCK_ERR_UNSUPPORTED: Windows
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, out of range, a name is not valid, or an item does not
///     have exactly one socket
///   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_handover_start(
    argv: *const *const c_char,
    items: *const keepsock_handover_item,
    count: usize,
    timeout_ms: i64,
    cancel: *const keepsock_cancel_token,
    pid: *mut i64,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `cancel` during the call; `items` has
    // `count` valid elements; `pid` and `error` are NULL or writable.
    let (cancel, items, pid, error) = unsafe {
        (
            Ref::new(cancel),
            Array::new(items, count, "items"),
            Optional::new(pid),
            ErrorOut::new(error),
        )
    };
    call(error, "hand over", || {
        let mut handover = Handover::new();
        if !argv.is_null() {
            // SAFETY: the header requires strings that end with NUL, and NULL after the last one.
            let mut words = unsafe { words(argv) }.into_iter();
            let program = words.next().ok_or_else(|| null("argv[0]"))?;
            handover = words.fold(handover.program(program), |h, word| h.arg(word));
        }
        for item in items.get()? {
            // SAFETY: the header requires that `name` ends with NUL, and that no thread frees the
            // server during the call.
            let (name, server) = unsafe { (Text::new(item.name, "name"), Ref::new(item.server)) };
            handover = match (server.optional()?, item.datagram.is_null()) {
                (Some(server), true) => handover.server(name.get()?, &server.socket),
                (None, false) => {
                    // SAFETY: the header requires that no thread frees it during the call.
                    unsafe { add_datagram(handover, name.get()?, item) }?
                }
                _ => return Err(invalid("an item must have either a server or a datagram")),
            };
        }
        let limit = timeout("timeout_ms", timeout_ms)?;
        let token = cancel.optional()?.map(Handle::target);
        pid.write(handover.cancel(token).start(limit)?.into());
        Ok(())
    })
}

/// Adds the datagram socket of an item.
///
/// # Safety
/// No thread frees the datagram socket during the call.
#[cfg(feature = "datagram")]
unsafe fn add_datagram<'a>(
    handover: Handover<'a>,
    name: &str,
    item: &'a keepsock_handover_item,
) -> Result<Handover<'a>> {
    // SAFETY: the caller guarantees that the socket is not freed.
    let datagram = unsafe { Ref::new(item.datagram) }.get()?;
    Ok(handover.datagram(name, &datagram.socket))
}

#[cfg(not(feature = "datagram"))]
unsafe fn add_datagram<'a>(
    _: Handover<'a>,
    _: &str,
    _: &'a keepsock_handover_item,
) -> Result<Handover<'a>> {
    let error = crate::Error::new(crate::ErrorKind::Unsupported, "hand over");
    Err(error.detail("the library was built without datagram sockets"))
}

/// The strings of an array that ends with NULL.
///
/// # Safety
/// `argv` points to strings that end with NUL, and NULL follows the last one.
unsafe fn words<'a>(mut argv: *const *const c_char) -> Vec<&'a OsStr> {
    let mut words = Vec::new();
    // SAFETY: the caller guarantees the strings, and the loop does not read beyond the NULL.
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
