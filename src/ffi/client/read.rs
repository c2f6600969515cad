//! Reading from a `keepsock_client`.

use std::ffi::{c_char, c_void};

use crate::Framing;
use crate::ffi::{
    Array, BytesMut, ErrorOut, Optional, Ref, SizedIn, framing_from_c, invalid, keepsock_buffer,
    keepsock_client, keepsock_error, keepsock_framing, with_frequent,
};
use crate::internal::CancellationDisabled;

/// Copies a message to the beginning of a buffer that has space for it, and returns its length.
fn copy(message: &[u8], to: &mut [u8]) -> Option<usize> {
    to[..message.len()].copy_from_slice(message);
    Some(message.len())
}

/// Reads at least one byte.
///
/// The call waits until data arrives, the peer closes its side, or the read timeout expires.
/// Buffered bytes that an earlier call read and did not return come first.
///
/// @param buf    Receives at most `cap` bytes.
/// @param cap    The size of `buf`, greater than 0.
/// @param len    Receives the number of bytes read. 0 means end of stream: the peer closed its
///               side.
/// @param error  A read that would block allocates nothing if it is NULL.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_TIMED_OUT: the read timeout expired
///   - KEEPSOCK_ERR_MALFORMED: the connection has no valid PROXY header; it was reset
///   - KEEPSOCK_ERR_WOULD_BLOCK: non-blocking mode, and the call would wait
///   - KEEPSOCK_ERR_CANCELLED: the cancel token was fired
///   - KEEPSOCK_ERR_CLOSED: this process closed the connection
///   - KEEPSOCK_ERR_DRAINING: the service is draining; finish the current request and return
///   - KEEPSOCK_ERR_RESET: the peer, or a device on the path, reset the connection
///   - KEEPSOCK_ERR_DEAD: the peer did not answer keepalive probes or data
///   - KEEPSOCK_ERR_UNREACHABLE: a router or firewall reported the peer unreachable
///   - KEEPSOCK_ERR_STALLED: the peer accepted no data for dead_after, with fail_on_stall
///   - KEEPSOCK_ERR_IDLE_TIMEOUT: the idle timeout or the first-byte timeout expired, or the PROXY
///     header did not arrive in time
///   - KEEPSOCK_ERR_HEARTBEAT_TIMEOUT: the peer did not answer a heartbeat in time
///   - KEEPSOCK_ERR_TOO_LONG: a SOCK_SEQPACKET packet was longer than the buffer and is lost
///   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
///   - KEEPSOCK_ERR_NO_DESCRIPTORS: RLIMIT_NOFILE is too low for poll(2)
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or `cap` is 0
///   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
/// @note Several threads may read. Each byte is delivered to exactly one of them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_client_read(
    client: *mut keepsock_client,
    buf: *mut c_void,
    cap: usize,
    len: *mut usize,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `client` during the call; `buf` has `cap`
    // writable bytes; `len` and `error` are NULL or writable.
    let (client, buf, len, error) = unsafe {
        (Ref::new(client), BytesMut::new(buf, cap), Optional::new(len), ErrorOut::new(error))
    };
    with_frequent(client, error, "read", |socket| {
        len.write(socket.try_read(buf.not_empty()?)?);
        Ok(())
    })
}

/// Reads exactly `len` bytes.
///
/// One read timeout covers the whole call. If the call fails, the contents of `buf` are undefined.
/// The bytes that have arrived are kept for the next read, and keepsock_error_transferred() returns
/// their number. A call that has received many MiB and cannot receive the rest in time returns
/// earlier by the time it needs to keep the bytes, about 2 ms per MiB. If this process has no memory
/// to keep the bytes, they are in `buf` only.
///
/// @param buf  Receives `len` bytes.
/// @param len  The number of bytes.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_END_OF_STREAM: the peer closed its side before `len` bytes had arrived
///   - KEEPSOCK_ERR_TIMED_OUT: the read timeout expired
///   - KEEPSOCK_ERR_MALFORMED: the connection has no valid PROXY header; it was reset
///   - KEEPSOCK_ERR_WOULD_BLOCK: non-blocking mode, and the call would wait
///   - KEEPSOCK_ERR_CANCELLED: the cancel token was fired
///   - KEEPSOCK_ERR_CLOSED: this process closed the connection
///   - KEEPSOCK_ERR_DRAINING: the service is draining; finish the current request and return
///   - KEEPSOCK_ERR_RESET: the peer, or a device on the path, reset the connection
///   - KEEPSOCK_ERR_DEAD: the peer did not answer keepalive probes or data
///   - KEEPSOCK_ERR_UNREACHABLE: a router or firewall reported the peer unreachable
///   - KEEPSOCK_ERR_STALLED: the peer accepted no data for dead_after, with fail_on_stall
///   - KEEPSOCK_ERR_IDLE_TIMEOUT: the idle timeout or the first-byte timeout expired, or the PROXY
///     header did not arrive in time
///   - KEEPSOCK_ERR_HEARTBEAT_TIMEOUT: the peer did not answer a heartbeat in time
///   - KEEPSOCK_ERR_WRONG_STATE: a SOCK_SEQPACKET socket, which is read in whole packets
///   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers, or this process has
///     no memory to keep the bytes that have arrived
///   - KEEPSOCK_ERR_NO_DESCRIPTORS: RLIMIT_NOFILE is too low for poll(2)
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL
///   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_client_read_exact(
    client: *mut keepsock_client,
    buf: *mut c_void,
    len: usize,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `client` during the call; `buf` has `len`
    // writable bytes; `error` is NULL or writable.
    let (client, buf, error) =
        unsafe { (Ref::new(client), BytesMut::new(buf, len), ErrorOut::new(error)) };
    with_frequent(client, error, "read", |socket| {
        let _disabled = CancellationDisabled::new();
        socket.try_read_exact(buf.get()?)
    })
}

/// Reads up to and including a delimiter.
///
/// If the stream ends without a delimiter, the last piece is returned without one. If the call
/// fails, the bytes that have arrived are kept for the next read.
///
/// @param delimiter  The byte that ends a piece.
/// @param buf        Receives the piece with its delimiter. No NUL is added.
/// @param cap        The size of `buf` in bytes, greater than 0: the longest piece.
/// @param len        Receives the length of the piece.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_END_OF_STREAM: the peer closed its side, and no bytes are left
///   - KEEPSOCK_ERR_TOO_LONG: no delimiter within `cap` bytes; the bytes stay readable with
///     keepsock_client_read() or a larger buffer
///   - KEEPSOCK_ERR_TIMED_OUT: the read timeout expired
///   - KEEPSOCK_ERR_MALFORMED: the connection has no valid PROXY header; it was reset
///   - KEEPSOCK_ERR_WOULD_BLOCK: non-blocking mode, and the call would wait
///   - KEEPSOCK_ERR_CANCELLED: the cancel token was fired
///   - KEEPSOCK_ERR_CLOSED: this process closed the connection
///   - KEEPSOCK_ERR_DRAINING: the service is draining; finish the current request and return
///   - KEEPSOCK_ERR_RESET: the peer, or a device on the path, reset the connection
///   - KEEPSOCK_ERR_DEAD: the peer did not answer keepalive probes or data
///   - KEEPSOCK_ERR_UNREACHABLE: a router or firewall reported the peer unreachable
///   - KEEPSOCK_ERR_STALLED: the peer accepted no data for dead_after, with fail_on_stall
///   - KEEPSOCK_ERR_IDLE_TIMEOUT: the idle timeout or the first-byte timeout expired, or the PROXY
///     header did not arrive in time
///   - KEEPSOCK_ERR_HEARTBEAT_TIMEOUT: the peer did not answer a heartbeat in time
///   - KEEPSOCK_ERR_WRONG_STATE: a SOCK_SEQPACKET socket, which is read in whole packets
///   - KEEPSOCK_ERR_NO_MEMORY: no memory in the kernel, or in this process for the buffered
///     bytes, which are kept
///   - KEEPSOCK_ERR_NO_DESCRIPTORS: RLIMIT_NOFILE is too low for poll(2)
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or `cap` is 0
///   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_client_read_until(
    client: *mut keepsock_client,
    delimiter: u8,
    buf: *mut c_void,
    cap: usize,
    len: *mut usize,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `client` during the call; `buf` has `cap`
    // writable bytes; `len` and `error` are NULL or writable.
    let (client, buf, len, error) = unsafe {
        (Ref::new(client), BytesMut::new(buf, cap), Optional::new(len), ErrorOut::new(error))
    };
    with_frequent(client, error, "read", |socket| {
        let _disabled = CancellationDisabled::new();
        let out = buf.not_empty()?;
        len.write(socket.read_until_bytes(delimiter, cap, |piece| copy(piece, out))?);
        Ok(())
    })
}

/// Reads one message.
///
/// keepsock_framing describes which bytes of the stream are the message. A message may have no
/// bytes. With KEEPSOCK_FRAMING_RAW the call returns the bytes that have arrived, at least one. One
/// read timeout covers the whole call. If the call fails, the bytes that have arrived are kept for
/// the next read.
///
/// @code
/// const keepsock_framing mqtt = {
///     .size = sizeof mqtt, .kind = KEEPSOCK_FRAMING_LENGTH_FIELD,
///     .length_format = KEEPSOCK_LENGTH_FORMAT_VARINT_MQTT, .length_offset = 1, .max = 65536
/// };
/// static unsigned char packet[65536];
/// size_t len = 0;
/// if (keepsock_client_read_message(client, &mqtt, packet, sizeof packet, &len, NULL)
///     == KEEPSOCK_OK)
///     printf("packet type %d, %zu bytes\n", packet[0] >> 4, len);
/// @endcode
///
/// @param framing  The framing.
/// @param buf      Receives the message. No NUL is added.
/// @param cap      The size of `buf` in bytes.
/// @param len      Receives the length of the message.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_END_OF_STREAM: the peer closed its side before a whole message had arrived
///   - KEEPSOCK_ERR_TOO_LONG: the message is longer than `framing->max` or `cap`
///   - KEEPSOCK_ERR_MALFORMED: the connection has no valid PROXY header; or the length is not a
///     number in its format, or is below zero with `length_adjustment`
///   - KEEPSOCK_ERR_TIMED_OUT: the read timeout expired
///   - KEEPSOCK_ERR_WOULD_BLOCK: non-blocking mode, and the call would wait
///   - KEEPSOCK_ERR_CANCELLED: the cancel token was fired
///   - KEEPSOCK_ERR_CLOSED: this process closed the connection
///   - KEEPSOCK_ERR_DRAINING: the service is draining; finish the current request and return
///   - KEEPSOCK_ERR_RESET: the peer, or a device on the path, reset the connection
///   - KEEPSOCK_ERR_DEAD: the peer did not answer keepalive probes or data
///   - KEEPSOCK_ERR_UNREACHABLE: a router or firewall reported the peer unreachable
///   - KEEPSOCK_ERR_STALLED: the peer accepted no data for dead_after, with fail_on_stall
///   - KEEPSOCK_ERR_IDLE_TIMEOUT: the idle timeout or the first-byte timeout expired, or the PROXY
///     header did not arrive in time
///   - KEEPSOCK_ERR_HEARTBEAT_TIMEOUT: the peer did not answer a heartbeat in time
///   - KEEPSOCK_ERR_WRONG_STATE: a SOCK_SEQPACKET socket, which is read in whole packets
///   - KEEPSOCK_ERR_NO_MEMORY: no memory in the kernel, or in this process for the buffered
///     bytes, which are kept
///   - KEEPSOCK_ERR_NO_DESCRIPTORS: RLIMIT_NOFILE is too low for poll(2)
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, no version has this `framing->size`, a member of
///     `framing` is out of range or is set although its kind does not use it, or `cap` is 0 with
///     KEEPSOCK_FRAMING_RAW
///   - KEEPSOCK_ERR_UNSUPPORTED: this version of the library does not know a member of `framing`
///     that is set
///   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_client_read_message(
    client: *mut keepsock_client,
    framing: *const keepsock_framing,
    buf: *mut c_void,
    cap: usize,
    len: *mut usize,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `client` during the call; `framing` is NULL or
    // has the size that it states; `buf` has `cap` writable bytes; `len` and `error` are NULL or
    // writable.
    let (client, framing, buf, len, error) = unsafe {
        (
            Ref::new(client),
            SizedIn::new(framing, "framing"),
            BytesMut::new(buf, cap),
            Optional::new(len),
            ErrorOut::new(error),
        )
    };
    with_frequent(client, error, "read", |socket| {
        let _disabled = CancellationDisabled::new();
        let framing = framing_from_c(framing)?;
        let out = if framing == Framing::Raw { buf.not_empty()? } else { buf.get()? };
        len.write(socket.read_message_bytes(framing, cap, |message| copy(message, out))?);
        Ok(())
    })
}

/// Reads one line and removes its line ending.
///
/// A line ends with LF or CRLF, which the function removes. The last line of a stream may lack
/// its end. If the call fails, the bytes that have arrived are kept for the next read.
///
/// @param buf  Receives the line and a NUL.
/// @param cap  The size of `buf` in bytes; the line may have `cap` - 1 bytes.
/// @param len  Receives the length without the NUL. The line may contain NUL bytes.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_END_OF_STREAM: the peer closed its side, and no bytes are left
///   - KEEPSOCK_ERR_TOO_LONG: no line end within `cap` bytes; the bytes stay readable with
///     keepsock_client_read() or a larger buffer
///   - KEEPSOCK_ERR_TIMED_OUT: the read timeout expired
///   - KEEPSOCK_ERR_MALFORMED: the connection has no valid PROXY header; it was reset
///   - KEEPSOCK_ERR_WOULD_BLOCK: non-blocking mode, and the call would wait
///   - KEEPSOCK_ERR_CANCELLED: the cancel token was fired
///   - KEEPSOCK_ERR_CLOSED: this process closed the connection
///   - KEEPSOCK_ERR_DRAINING: the service is draining; finish the current request and return
///   - KEEPSOCK_ERR_RESET: the peer, or a device on the path, reset the connection
///   - KEEPSOCK_ERR_DEAD: the peer did not answer keepalive probes or data
///   - KEEPSOCK_ERR_UNREACHABLE: a router or firewall reported the peer unreachable
///   - KEEPSOCK_ERR_STALLED: the peer accepted no data for dead_after, with fail_on_stall
///   - KEEPSOCK_ERR_IDLE_TIMEOUT: the idle timeout or the first-byte timeout expired, or the PROXY
///     header did not arrive in time
///   - KEEPSOCK_ERR_HEARTBEAT_TIMEOUT: the peer did not answer a heartbeat in time
///   - KEEPSOCK_ERR_WRONG_STATE: a SOCK_SEQPACKET socket, which is read in whole packets
///   - KEEPSOCK_ERR_NO_MEMORY: no memory in the kernel, or in this process for the buffered
///     bytes, which are kept
///   - KEEPSOCK_ERR_NO_DESCRIPTORS: RLIMIT_NOFILE is too low for poll(2)
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or `cap` is 0
///   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_client_read_line(
    client: *mut keepsock_client,
    buf: *mut c_char,
    cap: usize,
    len: *mut usize,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `client` during the call; `buf` has `cap`
    // writable bytes; `len` and `error` are NULL or writable.
    let (client, buf, len, error) = unsafe {
        (Ref::new(client), BytesMut::new(buf, cap), Optional::new(len), ErrorOut::new(error))
    };
    with_frequent(client, error, "read", |socket| {
        let _disabled = CancellationDisabled::new();
        let out = buf.not_empty()?;
        let n = socket.read_line_bytes(cap - 1, |line| {
            out[line.len()] = 0;
            copy(line, out)
        })?;
        len.write(n);
        Ok(())
    })
}

/// Copies the next bytes and leaves them for the next read (recv(2) with MSG_PEEK).
///
/// The call waits as keepsock_client_read() does. Buffered bytes and bytes in the kernel are copied
/// together. A further call does not wait: it returns the same bytes, and bytes that arrived in
/// the meantime. A copy does not count as traffic for the idle timeout.
///
/// @param buf    Receives at most `cap` bytes.
/// @param cap    The size of `buf`, greater than 0.
/// @param len    Receives the number of bytes. 0 means end of stream.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_TIMED_OUT: the read timeout expired
///   - KEEPSOCK_ERR_MALFORMED: the connection has no valid PROXY header; it was reset
///   - KEEPSOCK_ERR_WOULD_BLOCK: non-blocking mode, and the call would wait
///   - KEEPSOCK_ERR_CANCELLED: the cancel token was fired
///   - KEEPSOCK_ERR_CLOSED: this process closed the connection
///   - KEEPSOCK_ERR_DRAINING: the service is draining; finish the current request and return
///   - KEEPSOCK_ERR_RESET: the peer, or a device on the path, reset the connection
///   - KEEPSOCK_ERR_DEAD: the peer did not answer keepalive probes or data
///   - KEEPSOCK_ERR_UNREACHABLE: a router or firewall reported the peer unreachable
///   - KEEPSOCK_ERR_STALLED: the peer accepted no data for dead_after, with fail_on_stall
///   - KEEPSOCK_ERR_IDLE_TIMEOUT: the idle timeout or the first-byte timeout expired, or the PROXY
///     header did not arrive in time
///   - KEEPSOCK_ERR_HEARTBEAT_TIMEOUT: the peer did not answer a heartbeat in time
///   - KEEPSOCK_ERR_WRONG_STATE: the socket is SOCK_SEQPACKET, which has whole packets only
///   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
///   - KEEPSOCK_ERR_NO_DESCRIPTORS: RLIMIT_NOFILE is too low for poll(2)
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or `cap` is 0
///   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_client_peek(
    client: *mut keepsock_client,
    buf: *mut c_void,
    cap: usize,
    len: *mut usize,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `client` during the call; `buf` has `cap`
    // writable bytes; `len` and `error` are NULL or writable.
    let (client, buf, len, error) = unsafe {
        (Ref::new(client), BytesMut::new(buf, cap), Optional::new(len), ErrorOut::new(error))
    };
    with_frequent(client, error, "peek", |socket| {
        len.write(socket.try_peek(buf.not_empty()?)?);
        Ok(())
    })
}

/// Returns the number of buffered bytes: bytes that the library has read and not yet returned.
///
/// An event loop must read these before it polls the descriptor: the kernel no longer has them.
///
/// @param client  A connection. NULL returns 0.
/// @return The number of bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_client_buffered(client: *const keepsock_client) -> usize {
    // SAFETY: the header requires that no thread frees `client` during the call.
    let client = unsafe { Ref::new(client) };
    client.find().map_or(0, |client| client.socket().buffered())
}

/// Reads at least one byte into several buffers, and fills them one after the other (readv(2)).
///
/// The call waits as keepsock_client_read() does.
///
/// @param buffers  The buffers.
/// @param count    The number of buffers.
/// @param len      Receives the number of bytes in all buffers. 0 means end of stream.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_TIMED_OUT: the read timeout expired
///   - KEEPSOCK_ERR_MALFORMED: the connection has no valid PROXY header; it was reset
///   - KEEPSOCK_ERR_WOULD_BLOCK: non-blocking mode, and the call would wait
///   - KEEPSOCK_ERR_CANCELLED: the cancel token was fired
///   - KEEPSOCK_ERR_CLOSED: this process closed the connection
///   - KEEPSOCK_ERR_DRAINING: the service is draining; finish the current request and return
///   - KEEPSOCK_ERR_RESET: the peer, or a device on the path, reset the connection
///   - KEEPSOCK_ERR_DEAD: the peer did not answer keepalive probes or data
///   - KEEPSOCK_ERR_UNREACHABLE: a router or firewall reported the peer unreachable
///   - KEEPSOCK_ERR_STALLED: the peer accepted no data for dead_after, with fail_on_stall
///   - KEEPSOCK_ERR_IDLE_TIMEOUT: the idle timeout or the first-byte timeout expired, or the PROXY
///     header did not arrive in time
///   - KEEPSOCK_ERR_HEARTBEAT_TIMEOUT: the peer did not answer a heartbeat in time
///   - KEEPSOCK_ERR_TOO_LONG: a SOCK_SEQPACKET packet was longer than the buffer and is lost
///   - KEEPSOCK_ERR_NO_MEMORY: no memory in the kernel, or in this process for a list of that many
///     buffers or for a packet in several buffers
///   - KEEPSOCK_ERR_NO_DESCRIPTORS: RLIMIT_NOFILE is too low for poll(2)
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or the buffers have no room
///   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_client_read_slices(
    client: *mut keepsock_client,
    buffers: *const keepsock_buffer,
    count: usize,
    len: *mut usize,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `client` during the call; `buffers` has
    // `count` valid elements; `len` and `error` are NULL or writable.
    let (client, buffers, len, error) = unsafe {
        (
            Ref::new(client),
            Array::new(buffers, count, "buffers"),
            Optional::new(len),
            ErrorOut::new(error),
        )
    };
    with_frequent(client, error, "read", |socket| {
        let _disabled = CancellationDisabled::new();
        let mut parts = buffers.buffers()?;
        if parts.iter().all(|part| part.is_empty()) {
            return Err(invalid("the buffers are empty: they need at least one byte").into());
        }
        len.write(socket.try_read_slices(&mut parts)?);
        Ok(())
    })
}
