//! `keepsock_activation`.

use std::ffi::c_char;

use crate::Activation;
#[cfg(feature = "datagram")]
use crate::ffi::keepsock_datagram;
use crate::ffi::{
    ErrorOut, Mut, Out, Ref, Result, Text, TextOut, create, handle, keepsock_client,
    keepsock_error, keepsock_options, keepsock_server, no_element, shield, with, with_mut,
};

mod handover;

pub use handover::*;

/// The sockets that another process passed to this one when it started it.
///
/// The other process is a service manager such as systemd (LISTEN_FDS, sd_listen_fds(3)), or a
/// predecessor that this process replaces (keepsock_handover_start()). The same calls of
/// keepsock_activation_listen() and keepsock_activation_bind() start a server from a shell, by
/// socket activation, and as a successor.
///
/// Threads: one thread at a time.
pub struct keepsock_activation {
    inherited: Activation,
}

impl keepsock_activation {
    fn new(inherited: Activation) -> keepsock_activation {
        keepsock_activation { inherited }
    }
}

handle!(keepsock_activation, Activation, "activation", inherited: Activation);

/// Calls `body` with the inherited sockets.
fn with_activation(
    activation: Mut<'_, keepsock_activation>,
    error: ErrorOut<'_>,
    operation: &'static str,
    body: impl FnOnce(&mut Activation) -> Result<()>,
) -> i32 {
    with_mut(activation, error, operation, |activation| body(&mut activation.inherited))
}

/// Removes the environment variables that keepsock_activation_from_env() reads (unsetenv(3)).
///
/// These are LISTEN_PID, LISTEN_PIDFDID, LISTEN_FDS, LISTEN_FDNAMES and the variable of
/// keepsock_handover_start(). Call it before the program executes itself again: the process ID
/// stays the same, so the variables would still name this process.
///
/// @note Do not call it while another thread reads or changes the environment.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_activation_clear_env() {
    shield((), || {
        for name in Activation::variables() {
            // SAFETY: the header requires that no other thread uses the environment.
            unsafe { std::env::remove_var(name) };
        }
    });
}

/// Inherits the sockets that the environment variables announce, once (sd_listen_fds(3)).
///
/// The descriptors become close-on-exec. A second call inherits nothing. The environment is
/// unchanged (keepsock_activation_clear_env()). Descriptors that are not sockets stay as they are.
/// A connection, as systemd passes it with Accept=yes, is inherited only by
/// keepsock_activation_client(); the program may pass its number to keepsock_client_from_fd()
/// instead.
///
/// The function inherits nothing if LISTEN_PID or LISTEN_PIDFDID names another process. It also
/// inherits nothing, and logs why, if no announced descriptor was passed: each is closed or
/// close-on-exec, so this program opened it. The variables are then left over from before the
/// program executed itself again. On Windows nothing is inherited.
///
/// Call it early, and before sd_listen_fds(3), which makes the descriptors close-on-exec. A socket
/// that the program opened without close-on-exec looks like a passed socket.
///
/// @param activation  Receives the object. Free it with keepsock_activation_free().
/// @return KEEPSOCK_OK on success, also if nothing was passed, otherwise
///   - KEEPSOCK_ERR_NO_MEMORY: this process has no memory for the object
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL; a variable is not a number; the numbers of names and
///     of descriptors differ; or only some of the descriptors were passed
///   - KEEPSOCK_ERR_OS: the system failed to report the kind of a descriptor
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_activation_from_env(
    activation: *mut *mut keepsock_activation,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that `activation` and `error` are NULL or writable.
    let (activation, error) = unsafe { (Out::new(activation, "activation"), ErrorOut::new(error)) };
    create(activation, error, "inherit", || Ok(keepsock_activation::new(Activation::from_env()?)))
}

/// Returns the inherited listening socket of an endpoint, or listens on the endpoint.
///
/// If no inherited socket is bound to the endpoint, the function works like
/// keepsock_server_listen() with keepsock_options_set_handover(). "*:80" matches a socket that
/// accepts IPv4 and IPv6, "[::]:80" a socket that accepts IPv6 only. Port 0 matches a listener
/// whose port the kernel assigned in the first process of the chain, and never a socket of a
/// service manager. A Unix socket is not matched if its path now names a different file.
///
/// The options apply in both cases. A listener of a predecessor gets them in
/// keepsock_activation_ready(), because the predecessor still uses it: if this process fails,
/// nothing has changed. Connections accepted earlier keep the predecessor's options. An inherited
/// socket keeps its backlog, unless the options set one, and the mode and the owner of its Unix
/// socket file.
///
/// @param endpoint  The endpoint to listen on.
/// @param options   Socket options, copied. NULL for the defaults.
/// @param server    Receives the server. Free it with keepsock_server_free().
/// @return KEEPSOCK_OK on success. After a failure the socket stays in `activation`:
///   - KEEPSOCK_ERR_WRONG_STATE: the inherited socket is a stream socket and `options` request
///     SOCK_SEQPACKET, or the reverse; or `options` request Multipath TCP and the socket lacks it
///   - KEEPSOCK_ERR_INVALID_ENDPOINT: `endpoint` does not parse, is a multicast or broadcast
///     address, or is a link-local IPv6 address without a zone; or this machine has no such zone or
///     interface
///   - KEEPSOCK_ERR_ADDRESS_IN_USE: the address is taken, or no local port is free
///   - KEEPSOCK_ERR_ADDRESS_NOT_AVAILABLE: the local address does not belong to this machine
///   - KEEPSOCK_ERR_PERMISSION_DENIED: the process may not bind to the port or the interface, or
///     write to the directory of the socket file
///   - KEEPSOCK_ERR_NOT_FOUND: the host, the service or the directory does not exist, or the host
///     has no address of the requested family
///   - KEEPSOCK_ERR_LOOKUP_FAILED: the resolver did not answer; trying again may help
///   - KEEPSOCK_ERR_TIMED_OUT: the lookup exceeded the connect timeout
///   - KEEPSOCK_ERR_CANCELLED: the cancel token of `options` was fired during the lookup
///   - KEEPSOCK_ERR_NO_DESCRIPTORS: the process or the system has no free descriptor
///   - KEEPSOCK_ERR_NO_MEMORY: this process has no memory for the object, or the kernel has no
///     memory or no socket buffers
///   - KEEPSOCK_ERR_UNSUPPORTED: this system lacks the kind of socket or an option
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or an option is out of range or has no effect here
///   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_activation_listen(
    activation: *mut keepsock_activation,
    endpoint: *const c_char,
    options: *const keepsock_options,
    server: *mut *mut keepsock_server,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `options` during the call; only this thread
    // uses `activation`; `endpoint` is NULL or ends with NUL; `server` and `error` are NULL or
    // writable.
    let (activation, endpoint, options, server, error) = unsafe {
        (
            Mut::new(activation),
            Text::new(endpoint, "endpoint"),
            Ref::new(options),
            Out::new(server, "server"),
            ErrorOut::new(error),
        )
    };
    with_activation(activation, error, "listen", |activation| {
        server.create(|| {
            Ok(keepsock_server::new(
                activation.listen(endpoint.endpoint()?, &*options.or_default()?)?,
            ))
        })
    })
}

/// Returns all inherited listening sockets of a name as one server.
///
/// The name is FileDescriptorName= of systemd, or the name that the predecessor gave; without one
/// it is "unknown". The options apply as in keepsock_activation_listen(). Datagram sockets of that
/// name stay for keepsock_activation_datagram(): systemd gives all sockets of a unit the same name.
///
/// @param name     The name.
/// @param options  Socket options, copied. NULL for the defaults.
/// @param server   Receives the server. Free it with keepsock_server_free().
/// @return KEEPSOCK_OK on success. After a failure the sockets stay in `activation`:
///   - KEEPSOCK_ERR_NOT_FOUND: no socket has that name
///   - KEEPSOCK_ERR_WRONG_STATE: no descriptor is a listening socket, or one is neither that nor a
///     datagram socket; stream and SOCK_SEQPACKET sockets are mixed; or a socket lacks the
///     SOCK_SEQPACKET or Multipath TCP of `options`. The error says which
///   - KEEPSOCK_ERR_INVALID_ENDPOINT: the interface of `options` does not exist
///   - KEEPSOCK_ERR_PERMISSION_DENIED: the process may not bind to the interface
///   - KEEPSOCK_ERR_UNSUPPORTED: this system lacks an option
///   - KEEPSOCK_ERR_NO_DESCRIPTORS: the process or the system has no free descriptor
///   - KEEPSOCK_ERR_NO_MEMORY: this process has no memory for the object, or the kernel has no
///     memory or no socket buffers
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or an option is out of range or has no effect here
///   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_activation_server(
    activation: *mut keepsock_activation,
    name: *const c_char,
    options: *const keepsock_options,
    server: *mut *mut keepsock_server,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `options` during the call; only this thread
    // uses `activation`; `name` is NULL or ends with NUL; `server` and `error` are NULL or writable.
    let (activation, name, options, server, error) = unsafe {
        (
            Mut::new(activation),
            Text::new(name, "name"),
            Ref::new(options),
            Out::new(server, "server"),
            ErrorOut::new(error),
        )
    };
    with_activation(activation, error, "inherit", |activation| {
        server.create(|| {
            Ok(keepsock_server::new(activation.server(name.get()?, &*options.or_default()?)?))
        })
    })
}

/// Returns the first inherited connection of a name, as systemd passes it with Accept=yes.
///
/// systemd names the descriptor "connection". Other sockets of that name stay.
///
/// @param name     The name.
/// @param options  Socket options, copied. NULL for the defaults.
/// @param client   Receives the connection. Free it with keepsock_client_free().
/// @return KEEPSOCK_OK on success. After a failure the connection stays in `activation`:
///   - KEEPSOCK_ERR_NOT_FOUND: no socket has that name
///   - KEEPSOCK_ERR_WRONG_STATE: no socket of that name is a connection, or the program closed
///     the descriptor
///   - KEEPSOCK_ERR_INVALID_ENDPOINT: the interface of `options` does not exist
///   - KEEPSOCK_ERR_PERMISSION_DENIED: the process may not bind to the interface
///   - KEEPSOCK_ERR_UNSUPPORTED: this system lacks an option
///   - KEEPSOCK_ERR_NO_MEMORY: this process has no memory for the object, or the kernel has no
///     memory or no socket buffers
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or an option is out of range or has no effect here
///   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_activation_client(
    activation: *mut keepsock_activation,
    name: *const c_char,
    options: *const keepsock_options,
    client: *mut *mut keepsock_client,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `options` during the call; only this thread
    // uses `activation`; `name` is NULL or ends with NUL; `client` and `error` are NULL or writable.
    let (activation, name, options, client, error) = unsafe {
        (
            Mut::new(activation),
            Text::new(name, "name"),
            Ref::new(options),
            Out::new(client, "client"),
            ErrorOut::new(error),
        )
    };
    with_activation(activation, error, "inherit", |activation| {
        client.create(|| {
            Ok(keepsock_client::own(activation.client(name.get()?, &*options.or_default()?)?))
        })
    })
}

/// Returns the first inherited datagram socket of a name, UDP or Unix. Other sockets of that name
/// stay.
///
/// The function sets the options immediately: a predecessor, which shares the socket, receives with
/// them from then on. Only keepsock_options_set_udp_gro() is set in keepsock_activation_ready(): a
/// predecessor without that option takes several coalesced datagrams for one. Set it in both
/// processes, or stop receiving in the predecessor before the successor starts.
///
/// @param name      The name.
/// @param options   Socket options, copied. NULL for the defaults.
/// @param datagram  Receives the socket. Free it with keepsock_datagram_free().
/// @return KEEPSOCK_OK on success. After a failure the socket stays in `activation`:
///   - KEEPSOCK_ERR_NOT_FOUND: no socket has that name
///   - KEEPSOCK_ERR_WRONG_STATE: no socket of that name is a datagram socket
///   - KEEPSOCK_ERR_UNSUPPORTED: this system lacks an option
///   - KEEPSOCK_ERR_NO_DESCRIPTORS: the process or the system has no free descriptor
///   - KEEPSOCK_ERR_NO_MEMORY: this process has no memory for the object, or the kernel has no
///     memory or no socket buffers
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or an option is out of range or has no effect here
///   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
#[cfg(feature = "datagram")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_activation_datagram(
    activation: *mut keepsock_activation,
    name: *const c_char,
    options: *const keepsock_options,
    datagram: *mut *mut keepsock_datagram,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `options` during the call; only this thread
    // uses `activation`; `name` is NULL or ends with NUL; `datagram` and `error` are NULL or
    // writable.
    let (activation, name, options, datagram, error) = unsafe {
        (
            Mut::new(activation),
            Text::new(name, "name"),
            Ref::new(options),
            Out::new(datagram, "datagram"),
            ErrorOut::new(error),
        )
    };
    with_activation(activation, error, "inherit", |activation| {
        datagram.create(|| {
            Ok(keepsock_datagram::new(activation.datagram(name.get()?, &*options.or_default()?)?))
        })
    })
}

/// Returns the inherited datagram socket of an endpoint, or binds to the endpoint.
///
/// If no inherited UDP or Unix socket is bound to the endpoint and not connected, the function
/// works like keepsock_datagram_bind() with keepsock_options_set_handover(). Endpoints match as in
/// keepsock_activation_listen(), and options apply as in keepsock_activation_datagram(). An
/// inherited UDP socket stays bound to its interface.
///
/// @param endpoint  The local endpoint.
/// @param options   Socket options, copied. NULL for the defaults.
/// @param datagram  Receives the socket. Free it with keepsock_datagram_free().
/// @return KEEPSOCK_OK on success. After a failure the socket stays in `activation`:
///   - KEEPSOCK_ERR_WRONG_STATE: the inherited socket is not a datagram socket
///   - KEEPSOCK_ERR_INVALID_ENDPOINT: `endpoint` does not parse, a link-local IPv6 address has no
///     zone, or this machine has no such zone or interface
///   - KEEPSOCK_ERR_ADDRESS_IN_USE: the address is taken, or no local port is free
///   - KEEPSOCK_ERR_ADDRESS_NOT_AVAILABLE: the local address does not belong to this machine
///   - KEEPSOCK_ERR_PERMISSION_DENIED: the process may not bind to the port or the interface, or
///     write to the directory of the socket file
///   - KEEPSOCK_ERR_NOT_FOUND: the host, the service or the directory does not exist, or the host
///     has no address of the requested family
///   - KEEPSOCK_ERR_LOOKUP_FAILED: the resolver did not answer; trying again may help
///   - KEEPSOCK_ERR_TIMED_OUT: the lookup exceeded the connect timeout
///   - KEEPSOCK_ERR_CANCELLED: the cancel token of `options` was fired during the lookup
///   - KEEPSOCK_ERR_NO_DESCRIPTORS: the process or the system has no free descriptor
///   - KEEPSOCK_ERR_NO_MEMORY: this process has no memory for the object, or the kernel has no
///     memory or no socket buffers
///   - KEEPSOCK_ERR_UNSUPPORTED: this system lacks the kind of socket or an option
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or an option is out of range or has no effect here
///   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
#[cfg(feature = "datagram")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_activation_bind(
    activation: *mut keepsock_activation,
    endpoint: *const c_char,
    options: *const keepsock_options,
    datagram: *mut *mut keepsock_datagram,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `options` during the call; only this thread
    // uses `activation`; `endpoint` is NULL or ends with NUL; `datagram` and `error` are NULL or
    // writable.
    let (activation, endpoint, options, datagram, error) = unsafe {
        (
            Mut::new(activation),
            Text::new(endpoint, "endpoint"),
            Ref::new(options),
            Out::new(datagram, "datagram"),
            ErrorOut::new(error),
        )
    };
    with_activation(activation, error, "bind", |activation| {
        datagram.create(|| {
            Ok(keepsock_datagram::new(
                activation.bind(endpoint.endpoint()?, &*options.or_default()?)?,
            ))
        })
    })
}

/// Writes the name of an inherited socket that no call has adopted yet, in the order of the
/// descriptors.
///
/// A call that adopts a socket, and keepsock_activation_ready(), change the list.
///
/// @param index          From 0.
/// @param buf            Receives the text.
/// @param cap            The size of `buf`.
/// @param required_size  Receives the size that the text needs.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_NOT_FOUND: no socket has that index
///   - KEEPSOCK_ERR_TOO_LONG: `cap` is too small; `buf` is unchanged
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_activation_name(
    activation: *const keepsock_activation,
    index: usize,
    buf: *mut c_char,
    cap: usize,
    required_size: *mut usize,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `activation` during the call; `buf` has `cap`
    // writable bytes; `required_size` and `error` are NULL or writable.
    let (activation, text, error) = unsafe {
        (Ref::new(activation), TextOut::new(buf, cap, required_size), ErrorOut::new(error))
    };
    with(activation, error, "name", |activation| {
        let (text, mut names) = (text.required()?, activation.names());
        let count = names.len();
        let name = names.nth(index);
        text.write(name.ok_or_else(|| no_element("socket", index, count))?)
    })
}

/// Notifies the predecessor that this process serves, so that the predecessor drains and exits.
///
/// Call it after everything that may fail has succeeded. Until then, if this process exits or frees
/// the object, the predecessor continues as before. A second call, and a call without a
/// predecessor, do nothing.
///
/// Before it notifies, the function sets the options of servers from the predecessor, and
/// keepsock_options_set_udp_gro() of datagram sockets. From then on this process removes the files
/// of Unix sockets. The library closes listening sockets and datagram sockets that the program did
/// not request: clients would connect to them and never be accepted.
///
/// @return KEEPSOCK_OK on success, also if the predecessor has exited. If the kernel rejects an
///   option, the predecessor is not notified:
///   - KEEPSOCK_ERR_INVALID_ENDPOINT: the interface does not exist
///   - KEEPSOCK_ERR_PERMISSION_DENIED: the process may not set the option
///   - KEEPSOCK_ERR_UNSUPPORTED: this system lacks the option
///   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL
///   - KEEPSOCK_ERR_OS: the predecessor does not read its socket, which is full, or another error of
///     the system; keepsock_error_os_error() returns its number
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_activation_ready(
    activation: *mut keepsock_activation,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that only this thread uses `activation`, and `error` is NULL or
    // writable.
    let (activation, error) = unsafe { (Mut::new(activation), ErrorOut::new(error)) };
    with_activation(activation, error, "ready", Activation::ready)
}

/// Closes the inherited sockets that the program did not request, and frees the object.
///
/// An inherited connection (Accept=yes of systemd) stays open, because the standard input and
/// output of this process may be that connection.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_activation_free(activation: *mut keepsock_activation) {
    // SAFETY: the header requires that no other thread uses `activation`.
    unsafe { handle::free(activation) };
}
