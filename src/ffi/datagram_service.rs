//! `keepsock_datagram_service`.

use std::ffi::c_void;

use super::datagram::{keepsock_datagram, keepsock_datagram_info, write_info};
use super::handle::{Handle, Pool, Pooled};
use super::{Result, guard, handle, invalid, keepsock_error, live, output, timeout};
use crate::{Datagram, DatagramService, DatagramSocket};

/// Called for each datagram, in a thread of the library's. Every function may be called inside but
/// for keepsock_datagram_service_wait(), which would wait for the handler itself, and the _free
/// functions of socket and service.
///
/// @param datagram  The socket that is served: answer with keepsock_datagram_reply().
/// @param info      What is told of the datagram; valid until the handler returns. Later versions
///                  may have more at its end.
/// @param data      Its bytes; valid until the handler returns.
/// @param len       How many.
/// @param user      What was passed to keepsock_datagram_serve(). It must live until
///                  keepsock_datagram_service_free() returns.
pub type keepsock_datagram_handler = Option<
    unsafe extern "C" fn(
        datagram: *mut keepsock_datagram,
        info: *const keepsock_datagram_info,
        data: *const c_void,
        len: usize,
        user: *mut c_void,
    ),
>;

/// A datagram socket that is being served, made by keepsock_datagram_serve().
///
/// Threads: any thread may call any function, handlers included (but see
/// keepsock_datagram_handler). Only keepsock_datagram_service_free() needs the object for itself.
pub struct keepsock_datagram_service(DatagramService);

impl Handle for keepsock_datagram_service {
    const MARK: u32 = 0x6b73_0046;
}

impl Pooled for keepsock_datagram_service {
    fn pool() -> &'static Pool<Self> {
        static POOL: Pool<keepsock_datagram_service> = Pool::new();
        &POOL
    }
}

/// C's side of a service.
struct Program {
    datagram: *mut keepsock_datagram,
    user: *mut c_void,
}

// SAFETY: the header says that handlers run in threads of the library's, with user, and that the
// socket's object lives until the service is freed.
unsafe impl Send for Program {}
// SAFETY: likewise, in several at once.
unsafe impl Sync for Program {}

impl Program {
    fn arguments(&self) -> (*mut keepsock_datagram, *mut c_void) {
        (self.datagram, self.user)
    }
}

/// # Safety
/// `service` is null or live; `error` is null or writable.
unsafe fn with(
    service: *const keepsock_datagram_service,
    error: *mut *mut keepsock_error,
    operation: &'static str,
    body: impl FnOnce(&DatagramService) -> Result<()>,
) -> i32 {
    let body = || {
        // SAFETY: as the caller promises.
        body(unsafe { &live(service, operation, "service")?.0 })
    };
    // SAFETY: as the caller promises.
    unsafe { guard(error, operation, body) }
}

/// Serves: receives in threads of the library's, and calls handler for each datagram. Returns at
/// once. Meanwhile any thread may send with the socket. A thread takes up to 16 datagrams at once
/// (4 of a Unix socket, whose datagrams are cut after 256 KiB); with several threads those of one
/// sender may be handled at the same time, and out of their order. Timeouts and non-blocking mode
/// of the socket do not hold for the threads; its token ends the service. If the socket is served
/// twice, stopping either service ends both. The threads have the signal mask of the thread that
/// makes this call, and a stack of 2 MiB. One whose receiving fails ends, with a log event;
/// keepsock_datagram_service_wait() tells why.
///
/// @param datagram  A socket. Free it after the service.
/// @param threads   How many threads; from 1 to 1,024.
/// @param handler   See keepsock_datagram_handler.
/// @param user      Passed to handler; may be NULL.
/// @param service   Receives the service, before the first call of handler, so that user may be
///                  where it is kept; free it with keepsock_datagram_service_free().
/// @param error     See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, KEEPSOCK_ERR_CLOSED, _NO_MEMORY (for it, or no thread can be started),
///         _INVALID_ARGUMENT. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_datagram_serve(
    datagram: *mut keepsock_datagram,
    threads: u32,
    handler: keepsock_datagram_handler,
    user: *mut c_void,
    service: *mut *mut keepsock_datagram_service,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "serve";
    let body = || {
        let out = output(service, OPERATION, "service")?;
        let handler = handler.ok_or_else(|| invalid(OPERATION, "handler is NULL"))?;
        // SAFETY: null, or live, as the header asks.
        let socket = unsafe { &live(datagram, OPERATION, "datagram")?.socket };
        let program = Program { datagram, user };
        let call = move |_: &DatagramSocket, datagram: &Datagram, bytes: &[u8]| {
            let (socket, user) = program.arguments();
            let mut info = std::mem::MaybeUninit::<keepsock_datagram_info>::zeroed();
            // SAFETY: there is room for it. The handler is C's, and what it is lent lives until it
            // returns.
            unsafe {
                datagram.tell(|facts| write_info(info.as_mut_ptr(), size_of_val(&info), facts));
                handler(socket, info.as_ptr(), bytes.as_ptr().cast(), bytes.len(), user);
            }
        };
        socket.serve_into(threads, call, |service| {
            // SAFETY: not null, and writable as the header asks.
            unsafe { out.write(handle::give(keepsock_datagram_service(service))) };
        })
    };
    // SAFETY: null, or writable as the header asks.
    unsafe { guard(error, OPERATION, body) }
}

/// How many datagrams were received so far.
///
/// @param service  A service, or NULL: 0.
/// @return Their number. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_datagram_service_received(
    service: *const keepsock_datagram_service,
) -> u64 {
    // SAFETY: null, or live as the header asks.
    unsafe { handle::get(service) }.map_or(0, |service| service.0.received())
}

/// Ends receiving, for the socket as a whole and for good: its receiving calls return
/// KEEPSOCK_ERR_CLOSED from then on, but it can still send. What a thread has taken already is
/// handled; what waits in the kernel is not. May be called from inside a handler; stopping twice is
/// fine.
///
/// @param service  A service.
/// @param error    See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT for NULL. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_datagram_service_stop(
    service: *mut keepsock_datagram_service,
    error: *mut *mut keepsock_error,
) -> i32 {
    let body = |service: &DatagramService| {
        service.stop();
        Ok(())
    };
    // SAFETY: as the header asks.
    unsafe { with(service, error, "stop", body) }
}

/// Waits until all threads have ended, and so all handlers returned: after
/// keepsock_datagram_service_stop(), the socket's close, or its token.
///
/// @param service  A service.
/// @param ms       Milliseconds, 0 only asks; or KEEPSOCK_INFINITE.
/// @param error    See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, KEEPSOCK_ERR_TIMED_OUT (it still receives), _WRONG_STATE (from inside a
///         handler), _INVALID_ARGUMENT, or the error of a receiving call that failed for good.
///         Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_datagram_service_wait(
    service: *mut keepsock_datagram_service,
    ms: i64,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "wait";
    let body = |service: &DatagramService| service.wait(timeout(ms, OPERATION)?);
    // SAFETY: as the header asks.
    unsafe { with(service, error, OPERATION, body) }
}

/// Stops, waits for the handlers to return, and frees a service. Not from inside a handler. The
/// socket stays, and can send. Freeing NULL does nothing.
///
/// @param service  A service, or NULL. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_datagram_service_free(service: *mut keepsock_datagram_service) {
    // SAFETY: null, or a service as the header asks.
    unsafe { handle::free(service) };
}
