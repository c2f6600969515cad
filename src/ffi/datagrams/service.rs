//! `keepsock_datagram_service`.

use std::ffi::c_void;
use std::mem::MaybeUninit;

use crate::ffi::{
    ErrorOut, Handle, Out, Ref, User, handle, keepsock_datagram, keepsock_datagram_info,
    keepsock_error, keepsock_serve_options, null, timeout, with, write_info,
};
use crate::{Datagram, DatagramService, DatagramSocket};

/// Called for each datagram, in a thread of the library.
///
/// With more than one thread, several calls run at the same time. The handler may call every
/// function except keepsock_datagram_service_wait(), which would wait for the handler, and the
/// _free functions of the socket and the service. The last call has returned when
/// keepsock_datagram_service_wait() returns KEEPSOCK_OK, or keepsock_datagram_service_free()
/// returns.
///
/// @param datagram  The socket that received the datagram. Reply with keepsock_datagram_reply().
/// @param info      The sender, the length and the metadata, valid until the handler returns.
///                  Later versions may add members at the end.
/// @param buf       The bytes, valid until the handler returns.
/// @param len       The number of bytes.
/// @param user      The pointer that the program passed with the callback.
pub type keepsock_datagram_handler = Option<
    unsafe extern "C" fn(
        datagram: *mut keepsock_datagram,
        info: *const keepsock_datagram_info,
        buf: *const c_void,
        len: usize,
        user: *mut c_void,
    ),
>;

/// A service that receives datagrams in threads of the library.
///
/// It has no connections, and so nothing to drain or to list. To end it in order, call
/// keepsock_datagram_service_stop() and then keepsock_datagram_service_wait(), which returns when
/// the received datagrams are handled. keepsock_datagram_get_stats() has the counters of each
/// socket. For a restart without losing datagrams that wait in the kernel, pass the socket to the
/// successor (keepsock_handover_start()).
///
/// Threads: any thread may call any function, also from inside a handler, except as
/// keepsock_datagram_handler says. Only keepsock_datagram_service_free() requires that no other
/// thread uses the object, except in handlers of the service.
pub struct keepsock_datagram_service(Serving);

handle!(keepsock_datagram_service, DatagramService, "service", 0: Serving);

/// A service, and the handler of the program, which receives the handle of each socket.
pub(crate) struct Serving {
    service: DatagramService,
    handler: Handler,
    user: User,
}

/// A keepsock_datagram_handler that is not NULL.
type Handler = unsafe extern "C" fn(
    *mut keepsock_datagram,
    *const keepsock_datagram_info,
    *const c_void,
    usize,
    *mut c_void,
);

/// The arguments that all calls of a handler have in common.
struct Program {
    datagram: *mut keepsock_datagram,
    handler: Handler,
    user: User,
}

// SAFETY: the header states that the library's threads call the handler with `user`. `datagram` is a
// handle, which every thread may use until the program frees the socket, after the service.
unsafe impl Send for Program {}
// SAFETY: the header states that several threads call the handler at the same time.
unsafe impl Sync for Program {}

impl Program {
    fn receiver(self) -> impl Fn(&DatagramSocket, &Datagram, &[u8]) + Send + Sync {
        move |_, datagram, bytes| self.receive(datagram, bytes)
    }

    #[inline]
    fn receive(&self, datagram: &Datagram, bytes: &[u8]) {
        let mut info = MaybeUninit::<keepsock_datagram_info>::zeroed();
        let size = size_of_val(&info);
        // SAFETY: `info` has `size` bytes.
        datagram.with_meta(|facts| unsafe { write_info(info.as_mut_ptr(), size, facts) });
        let (buf, len) = (bytes.as_ptr().cast(), bytes.len());
        // SAFETY: `handler` is a function of the program with this signature. `info` and `buf` are
        // readable until it returns.
        unsafe { (self.handler)(self.datagram, info.as_ptr(), buf, len, self.user.get()) };
    }
}

/// Receives datagrams in threads of the library, and calls a handler for each.
///
/// The function returns after the threads have started. While it serves, any thread may send with
/// the socket. A thread receives up to 16 datagrams at a time, and 4 from a Unix socket, whose
/// datagrams are truncated after 256 KiB. With several threads, datagrams of one sender may be
/// handled at the same time and out of order. The socket's timeouts and non-blocking mode do not
/// apply to the threads; its cancel token ends the service. If a socket is served twice, stopping
/// one service ends both. The threads inherit the signal mask of the calling thread and have a
/// stack of 2 MiB (keepsock_serve_options_set_stack_size()).
///
/// After a temporary error such as ENOMEM or ENOBUFS, a thread pauses for 5 to 50 ms and retries.
/// The service counts these errors (`retried` of keepsock_datagram_stats) and logs at most one
/// event in 5 s. Errors of the socket itself (EBADF, ENOTSOCK, EINVAL, EFAULT) end the thread.
/// The service logs the error, and keepsock_datagram_service_wait() returns it.
///
/// @param datagram  A socket. Free it after the service.
/// @param options   Serve options, copied. NULL for the defaults. The number of threads (default 1,
///                  at most 1,024) and the stack size apply; options of connections are rejected.
/// @param handler   The handler.
/// @param user      Passed to the handler; valid until keepsock_datagram_service_free() returns.
/// @param service   Receives the service, before the first call of the handler. Free it with
///                  keepsock_datagram_service_free().
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_CLOSED: the socket is closed, or keepsock_datagram_service_stop() ended
///     receiving
///   - KEEPSOCK_ERR_UNSUPPORTED: the options have CPUs, which only Linux supports
///   - KEEPSOCK_ERR_NO_MEMORY: the system starts no more threads, or there is no memory for their
///     buffers or for the object
///   - KEEPSOCK_ERR_WRONG_STATE: `datagram` or `options` was freed
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, the number of threads or the stack size is out of
///     range, or an option has no effect on datagrams
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_datagram_serve(
    datagram: *mut keepsock_datagram,
    options: *const keepsock_serve_options,
    handler: keepsock_datagram_handler,
    user: *mut c_void,
    service: *mut *mut keepsock_datagram_service,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `datagram` before the service is freed, or
    // `options` during the call; `service` and `error` are NULL or writable.
    let (socket, options, service, error) = unsafe {
        (Ref::new(datagram), Ref::new(options), Out::new(service, "service"), ErrorOut::new(error))
    };
    let user = User(user);
    with(socket, error, "serve", |socket| {
        let out = service.reserved()?;
        let handler = handler.ok_or_else(|| null("handler"))?;
        let options = options.or_default()?;
        let program = Program { datagram, handler, user };
        socket.serve_into(&options, program.receiver(), |service| {
            out.put(keepsock_datagram_service(Serving { service, handler, user }))
        })
    })
}

/// Receives datagrams of another socket with the handler of a service.
///
/// Use it for another port, a Unix socket, or a multicast group. Each socket has its own threads: as
/// many as keepsock_serve_options_set_threads() set for the service. The handler receives the socket
/// of each datagram, so its replies leave from that socket. keepsock_datagram_service_stop() ends
/// receiving on all sockets. Closing one socket, or firing its cancel token, ends receiving on that
/// socket only. keepsock_datagram_get_stats() has the counters of each socket.
///
/// @param service   A service of keepsock_datagram_serve().
/// @param datagram  A socket that no service uses. Free it after the service.
/// @return KEEPSOCK_OK on success. Otherwise the service continues without the socket:
///   - KEEPSOCK_ERR_WRONG_STATE: a service uses the socket already; or the call comes from a forked
///     child; the service runs in the parent
///   - KEEPSOCK_ERR_CLOSED: the service was stopped or has ended, the socket is closed, or
///     keepsock_datagram_service_stop() ended receiving on the socket
///   - KEEPSOCK_ERR_NO_MEMORY: the system starts no more threads, or there is no memory for their
///     buffers
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL
/// @note May be called from inside a handler.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_datagram_service_add(
    service: *mut keepsock_datagram_service,
    datagram: *mut keepsock_datagram,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `service` during the call, or `datagram`
    // before the service is freed, and `error` is NULL or writable.
    let (service, socket, error) =
        unsafe { (Ref::new(service), Ref::new(datagram), ErrorOut::new(error)) };
    with(service, error, "add", |Serving { service, handler, user }| {
        let program = Program { datagram, handler: *handler, user: *user };
        service.add_with(socket.get()?.target(), program.receiver())
    })
}

/// Stops receiving on all sockets of the service, permanently.
///
/// From then on, receiving calls on the sockets return KEEPSOCK_ERR_CLOSED; the sockets can still
/// send. Datagrams that a thread has already received are handled, datagrams in the kernel are
/// not. The function may be called from inside a handler. Stopping twice has no effect, and neither
/// has a call in a forked child.
///
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_datagram_service_stop(
    service: *mut keepsock_datagram_service,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `service` during the call, and `error` is
    // NULL or writable.
    let (service, error) = unsafe { (Ref::new(service), ErrorOut::new(error)) };
    with(service, error, "stop", |serving| {
        serving.service.stop();
        Ok(())
    })
}

/// Waits until the service has ended: its threads have ended, and all handlers have returned.
///
/// keepsock_datagram_service_stop() ends the service. Closing the socket and firing its cancel token
/// end it as well, if it has no other socket.
///
/// @param timeout_ms  Milliseconds. 0 returns the present state. KEEPSOCK_INFINITE means no limit.
/// @return KEEPSOCK_OK if the service has ended, otherwise
///   - KEEPSOCK_ERR_TIMED_OUT: the service has not ended within the timeout
///   - KEEPSOCK_ERR_WRONG_STATE: the call comes from inside a handler of the service, or from a
///     forked child; the service runs in the parent
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or out of range
///   - KEEPSOCK_ERR_OS: an error of a socket ended receiving on it: EBADF, ENOTSOCK, EINVAL or
///     EFAULT
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_datagram_service_wait(
    service: *mut keepsock_datagram_service,
    timeout_ms: i64,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `service` during the call, and `error` is
    // NULL or writable.
    let (service, error) = unsafe { (Ref::new(service), ErrorOut::new(error)) };
    with(service, error, "wait", |serving| serving.service.wait(timeout("timeout_ms", timeout_ms)?))
}

/// Stops a service, waits until its handlers have returned, and frees it. The handlers may use the
/// service until then.
///
/// Do not call it from inside a handler. The sockets stay open and can send.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_datagram_service_free(service: *mut keepsock_datagram_service) {
    // SAFETY: the header requires that no other thread uses `service`, except handlers, which have
    // returned when `shut_down` returns.
    unsafe { handle::free_after(service, |serving| serving.0.service.shut_down()) };
}
