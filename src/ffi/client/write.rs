//! Writing to a `keepsock_client`.

use std::ffi::{c_char, c_void};

use crate::ffi::{
    Array, Bytes, ErrorOut, Optional, Ref, SizedIn, Text, borrow_file, framing_from_c,
    keepsock_client, keepsock_error, keepsock_fd, keepsock_framing, keepsock_slice, with,
    with_frequent,
};
use crate::internal::CancellationDisabled;

/// Writes one message with the length or the delimiter of its framing, in one system call.
///
/// keepsock_framing describes the bytes that the function adds to a message. One write timeout
/// covers the whole call. If the call fails, keepsock_error_transferred() returns the number of
/// bytes of the message that the kernel has accepted in all calls, including those of the length
/// and the delimiter.
///
/// If a call fails after the kernel has accepted a part of the message, the message is unfinished,
/// whatever the status is. Call the function again with the same framing and the same buffer, which
/// means the same address, length and bytes: the call sends the rest, and returns KEEPSOCK_OK when
/// the message is complete. Until then every other write returns KEEPSOCK_ERR_WRONG_STATE, because
/// the peer would take its bytes for the rest of the message, and the library sends no heartbeat. A
/// call that started before the message became unfinished does not continue it.
/// keepsock_client_shutdown_write(), keepsock_client_close() and keepsock_client_abort() are
/// permitted. A connection that has ended returns its end. If no byte was accepted, the message is
/// not unfinished.
///
/// @param framing  The framing.
/// @param buf      The message. Keep it unchanged and at its address while it is unfinished.
/// @param len      The number of bytes.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_TIMED_OUT: the write timeout expired
///   - KEEPSOCK_ERR_WOULD_BLOCK: non-blocking mode, and the kernel accepts no more bytes
///   - KEEPSOCK_ERR_CANCELLED: the cancel token was fired
///   - KEEPSOCK_ERR_CLOSED: this process closed the connection
///   - KEEPSOCK_ERR_RESET: the peer, or a device on the path, reset the connection
///   - KEEPSOCK_ERR_DEAD: the peer did not answer keepalive probes or data
///   - KEEPSOCK_ERR_UNREACHABLE: a router or firewall reported the peer unreachable
///   - KEEPSOCK_ERR_STALLED: the peer accepted no data for dead_after, with fail_on_stall
///   - KEEPSOCK_ERR_IDLE_TIMEOUT: the idle or first-byte timeout expired, and the call would wait
///   - KEEPSOCK_ERR_HEARTBEAT_TIMEOUT: the peer did not answer a heartbeat in time
///   - KEEPSOCK_ERR_PERMISSION_DENIED: a firewall or policy of this machine rejects the packet
///   - KEEPSOCK_ERR_WRONG_STATE: after keepsock_client_shutdown_write(), a SOCK_SEQPACKET socket,
///     or the unfinished message has another framing or buffer
///   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
///   - KEEPSOCK_ERR_NO_DESCRIPTORS: RLIMIT_NOFILE is too low for poll(2)
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, no version has this `framing->size`, a member of
///     `framing` is out of range or is set although its kind does not use it, or the peer
///     would not receive the message unchanged
///   - KEEPSOCK_ERR_UNSUPPORTED: this version of the library does not know a member of `framing`
///     that is set
///   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_client_write_message(
    client: *mut keepsock_client,
    framing: *const keepsock_framing,
    buf: *const c_void,
    len: usize,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `client` during the call; `framing` is NULL or
    // has the size that it states; `buf` has `len` readable bytes; `error` is NULL or writable.
    let (client, framing, buf, error) = unsafe {
        (
            Ref::new(client),
            SizedIn::new(framing, "framing"),
            Bytes::new(buf, len),
            ErrorOut::new(error),
        )
    };
    with_frequent(client, error, "write", |socket| {
        let _disabled = CancellationDisabled::new();
        socket.try_write_message(&framing_from_c(framing)?, buf.get()?)
    })
}

/// Writes at least one byte: waits until the kernel accepts some. With `len` 0 it writes nothing and
/// does not wait.
///
/// Most programs call keepsock_client_write_all().
///
/// @param buf      The bytes.
/// @param len      The number of bytes.
/// @param written  Receives the number of bytes that the kernel accepted.
/// @param error    A write that would block allocates nothing if it is NULL.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_TIMED_OUT: the write timeout expired
///   - KEEPSOCK_ERR_WOULD_BLOCK: non-blocking mode, and the kernel accepts no bytes
///   - KEEPSOCK_ERR_CANCELLED: the cancel token was fired
///   - KEEPSOCK_ERR_CLOSED: this process closed the connection
///   - KEEPSOCK_ERR_RESET: the peer, or a device on the path, reset the connection
///   - KEEPSOCK_ERR_DEAD: the peer did not answer keepalive probes or data
///   - KEEPSOCK_ERR_UNREACHABLE: a router or firewall reported the peer unreachable
///   - KEEPSOCK_ERR_STALLED: the peer accepted no data for dead_after, with fail_on_stall
///   - KEEPSOCK_ERR_IDLE_TIMEOUT: the idle or first-byte timeout expired, and the call would wait
///   - KEEPSOCK_ERR_HEARTBEAT_TIMEOUT: the peer did not answer a heartbeat in time
///   - KEEPSOCK_ERR_PERMISSION_DENIED: a firewall or policy of this machine rejects the packet
///   - KEEPSOCK_ERR_WRONG_STATE: after keepsock_client_shutdown_write(), or a message of
///     keepsock_client_write_message() is unfinished
///   - KEEPSOCK_ERR_TOO_LONG: a SOCK_SEQPACKET packet is longer than the kernel sends
///   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
///   - KEEPSOCK_ERR_NO_DESCRIPTORS: RLIMIT_NOFILE is too low for poll(2)
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or an empty SOCK_SEQPACKET packet
///   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_client_write(
    client: *mut keepsock_client,
    buf: *const c_void,
    len: usize,
    written: *mut usize,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `client` during the call; `buf` has `len`
    // readable bytes; `written` and `error` are NULL or writable.
    let (client, buf, written, error) = unsafe {
        (Ref::new(client), Bytes::new(buf, len), Optional::new(written), ErrorOut::new(error))
    };
    with_frequent(client, error, "write", |socket| {
        let _disabled = CancellationDisabled::new();
        written.write(socket.try_write(buf.get()?)?);
        Ok(())
    })
}

/// Writes all bytes of a buffer.
///
/// One write timeout covers the whole call. If the call fails, keepsock_error_transferred()
/// returns the number of bytes that the kernel accepted.
///
/// @param buf  The bytes.
/// @param len  The number of bytes.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_TIMED_OUT: the write timeout expired
///   - KEEPSOCK_ERR_WOULD_BLOCK: non-blocking mode, and the kernel accepts no more bytes
///   - KEEPSOCK_ERR_CANCELLED: the cancel token was fired
///   - KEEPSOCK_ERR_CLOSED: this process closed the connection
///   - KEEPSOCK_ERR_RESET: the peer, or a device on the path, reset the connection
///   - KEEPSOCK_ERR_DEAD: the peer did not answer keepalive probes or data
///   - KEEPSOCK_ERR_UNREACHABLE: a router or firewall reported the peer unreachable
///   - KEEPSOCK_ERR_STALLED: the peer accepted no data for dead_after, with fail_on_stall
///   - KEEPSOCK_ERR_IDLE_TIMEOUT: the idle or first-byte timeout expired, and the call would wait
///   - KEEPSOCK_ERR_HEARTBEAT_TIMEOUT: the peer did not answer a heartbeat in time
///   - KEEPSOCK_ERR_PERMISSION_DENIED: a firewall or policy of this machine rejects the packet
///   - KEEPSOCK_ERR_WRONG_STATE: after keepsock_client_shutdown_write(), or a message of
///     keepsock_client_write_message() is unfinished
///   - KEEPSOCK_ERR_TOO_LONG: a SOCK_SEQPACKET packet is longer than the kernel sends
///   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
///   - KEEPSOCK_ERR_NO_DESCRIPTORS: RLIMIT_NOFILE is too low for poll(2)
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or an empty SOCK_SEQPACKET packet
///   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_client_write_all(
    client: *mut keepsock_client,
    buf: *const c_void,
    len: usize,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `client` during the call; `buf` has `len`
    // readable bytes; `error` is NULL or writable.
    let (client, buf, error) =
        unsafe { (Ref::new(client), Bytes::new(buf, len), ErrorOut::new(error)) };
    with_frequent(client, error, "write", |socket| socket.try_write_all(buf.get()?))
}

/// Writes all of a string, without its NUL, as keepsock_client_write_all() does.
///
/// @param text  A NUL-terminated string in any encoding.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_TIMED_OUT: the write timeout expired
///   - KEEPSOCK_ERR_WOULD_BLOCK: non-blocking mode, and the kernel accepts no more bytes
///   - KEEPSOCK_ERR_CANCELLED: the cancel token was fired
///   - KEEPSOCK_ERR_CLOSED: this process closed the connection
///   - KEEPSOCK_ERR_RESET: the peer, or a device on the path, reset the connection
///   - KEEPSOCK_ERR_DEAD: the peer did not answer keepalive probes or data
///   - KEEPSOCK_ERR_UNREACHABLE: a router or firewall reported the peer unreachable
///   - KEEPSOCK_ERR_STALLED: the peer accepted no data for dead_after, with fail_on_stall
///   - KEEPSOCK_ERR_IDLE_TIMEOUT: the idle or first-byte timeout expired, and the call would wait
///   - KEEPSOCK_ERR_HEARTBEAT_TIMEOUT: the peer did not answer a heartbeat in time
///   - KEEPSOCK_ERR_PERMISSION_DENIED: a firewall or policy of this machine rejects the packet
///   - KEEPSOCK_ERR_WRONG_STATE: after keepsock_client_shutdown_write(), or a message of
///     keepsock_client_write_message() is unfinished
///   - KEEPSOCK_ERR_TOO_LONG: a SOCK_SEQPACKET packet is longer than the kernel sends
///   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
///   - KEEPSOCK_ERR_NO_DESCRIPTORS: RLIMIT_NOFILE is too low for poll(2)
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or an empty SOCK_SEQPACKET packet
///   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_client_write_str(
    client: *mut keepsock_client,
    text: *const c_char,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `client` during the call; `text` is NULL or
    // ends with NUL; `error` is NULL or writable.
    let (client, text, error) =
        unsafe { (Ref::new(client), Text::new(text, "text"), ErrorOut::new(error)) };
    with(client, error, "write", |socket| socket.write_all(text.bytes()?))
}

/// Writes all bytes of several buffers, without copying them together.
///
/// A header and a body are sent with one system call. One write timeout covers the whole call. If
/// the call fails, keepsock_error_transferred() returns the number of bytes that the kernel
/// accepted.
///
/// @param slices  The buffers.
/// @param count   The number of buffers.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_TIMED_OUT: the write timeout expired
///   - KEEPSOCK_ERR_WOULD_BLOCK: non-blocking mode, and the kernel accepts no more bytes
///   - KEEPSOCK_ERR_CANCELLED: the cancel token was fired
///   - KEEPSOCK_ERR_CLOSED: this process closed the connection
///   - KEEPSOCK_ERR_RESET: the peer, or a device on the path, reset the connection
///   - KEEPSOCK_ERR_DEAD: the peer did not answer keepalive probes or data
///   - KEEPSOCK_ERR_UNREACHABLE: a router or firewall reported the peer unreachable
///   - KEEPSOCK_ERR_STALLED: the peer accepted no data for dead_after, with fail_on_stall
///   - KEEPSOCK_ERR_IDLE_TIMEOUT: the idle or first-byte timeout expired, and the call would wait
///   - KEEPSOCK_ERR_HEARTBEAT_TIMEOUT: the peer did not answer a heartbeat in time
///   - KEEPSOCK_ERR_PERMISSION_DENIED: a firewall or policy of this machine rejects the packet
///   - KEEPSOCK_ERR_WRONG_STATE: after keepsock_client_shutdown_write(), or a message of
///     keepsock_client_write_message() is unfinished
///   - KEEPSOCK_ERR_TOO_LONG: a SOCK_SEQPACKET packet is longer than the kernel sends
///   - KEEPSOCK_ERR_NO_MEMORY: no memory in the kernel, or in this process for a list of that many
///     buffers or for a packet in several buffers
///   - KEEPSOCK_ERR_NO_DESCRIPTORS: RLIMIT_NOFILE is too low for poll(2)
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or an empty SOCK_SEQPACKET packet
///   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_client_write_slices(
    client: *mut keepsock_client,
    slices: *const keepsock_slice,
    count: usize,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `client` during the call; `slices` has
    // `count` valid elements; `error` is NULL or writable.
    let (client, slices, error) =
        unsafe { (Ref::new(client), Array::new(slices, count, "slices"), ErrorOut::new(error)) };
    with_frequent(client, error, "write", |socket| {
        let _disabled = CancellationDisabled::new();
        socket.try_write_slices(&mut slices.slices()?)
    })
}

/// Writes a part of a file (sendfile(2)).
///
/// The function writes `len` bytes from `offset`, or fewer, if the file ends earlier or becomes
/// shorter during the call: compare `written`. With UINT64_MAX the function also writes what another
/// program appends during the call.
///
/// One write timeout covers the whole call. If the call fails, keepsock_error_transferred() returns
/// the number of bytes that the kernel accepted. Bytes that other threads write come before or after
/// the part. The call does not use the file's own position, and changes it on Windows only.
///
/// On Linux, macOS and FreeBSD the bytes do not pass through this process. On Windows they do not
/// if the connection has no write timeout, cancel token or liveness timers (TransmitFile). Windows
/// may then reset the connection if another thread closes it during the call. On other systems, and
/// if the system rejects the file, the library reads the file in pieces and sends them.
///
/// After success the kernel may still refer to the pages of the file. If a program overwrites or
/// truncates the file before the peer's kernel has acknowledged the bytes, the peer may receive the
/// new content.
///
/// @param fd       A file that is open for reading, not a pipe or a socket. The caller keeps it.
///                 On Windows it is a HANDLE, and the call moves the position of the file.
/// @param offset   Where to start, in bytes from the beginning of the file.
/// @param len      The number of bytes. UINT64_MAX means up to the end of the file.
/// @param written  Receives the number of bytes that the kernel accepted.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_TIMED_OUT: the write timeout expired
///   - KEEPSOCK_ERR_WOULD_BLOCK: non-blocking mode, and the kernel accepts no more bytes
///   - KEEPSOCK_ERR_CANCELLED: the cancel token was fired
///   - KEEPSOCK_ERR_CLOSED: this process closed the connection
///   - KEEPSOCK_ERR_RESET: the peer, or a device on the path, reset the connection
///   - KEEPSOCK_ERR_DEAD: the peer did not answer keepalive probes or data
///   - KEEPSOCK_ERR_UNREACHABLE: a router or firewall reported the peer unreachable
///   - KEEPSOCK_ERR_STALLED: the peer accepted no data for dead_after, with fail_on_stall
///   - KEEPSOCK_ERR_IDLE_TIMEOUT: the idle or first-byte timeout expired, and the call would wait
///   - KEEPSOCK_ERR_HEARTBEAT_TIMEOUT: the peer did not answer a heartbeat in time
///   - KEEPSOCK_ERR_PERMISSION_DENIED: a firewall or policy of this machine rejects the packet
///   - KEEPSOCK_ERR_WRONG_STATE: after keepsock_client_shutdown_write(), a SOCK_SEQPACKET socket,
///     or a message of keepsock_client_write_message() is unfinished
///   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
///   - KEEPSOCK_ERR_NO_DESCRIPTORS: RLIMIT_NOFILE is too low for poll(2)
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL; `fd` is negative, closed, a directory, a pipe, a
///     socket or not open for reading; or `len` is UINT64_MAX, and `fd` is a character device
///   - KEEPSOCK_ERR_OS: the file cannot be read, or another error of the system
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_client_send_file(
    client: *mut keepsock_client,
    fd: keepsock_fd,
    offset: u64,
    len: u64,
    written: *mut u64,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `client` during the call, and `written` and
    // `error` are NULL or writable.
    let (client, written, error) =
        unsafe { (Ref::new(client), Optional::new(written), ErrorOut::new(error)) };
    with(client, error, "send file", |socket| {
        // SAFETY: the header requires that `fd`, if it is open, stays open during the call.
        let n = socket.send_file(unsafe { borrow_file(&fd) }?, offset, len)?;
        written.write(n);
        Ok(())
    })
}
