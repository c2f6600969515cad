//! Passed descriptors and peer credentials of a Unix socket.

use std::ffi::c_void;

use crate::Credentials;
use crate::ffi::{
    Array, Bytes, BytesMut, ErrorOut, Optional, OutArray, Ref, Structure, fill, into_fd,
    keepsock_client, keepsock_error, keepsock_fd, versioned, with,
};

/// The process at the other end of a Unix socket (SO_PEERCRED).
///
/// It is the process that called connect(2). For the side that connected, it is the process that
/// called listen(2). The kernel recorded the credentials at that time.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct keepsock_credentials {
    /// The process ID. -1: the system does not report it, or the process is in a PID namespace that this process cannot see.
    pub pid: i64,
    /// The effective user ID.
    pub uid: u32,
    /// The effective group ID.
    pub gid: u32,
}

versioned!(keepsock_credentials: 16);

pub(crate) fn credentials_to_c(peer: Credentials) -> keepsock_credentials {
    keepsock_credentials { pid: peer.pid.map_or(-1, i64::from), uid: peer.uid, gid: peer.gid }
}

/// Returns the peer's process, user and group (SO_PEERCRED). Unix sockets only.
///
/// @param out  Receives the credentials.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_UNSUPPORTED: TCP, or Windows
///   - KEEPSOCK_ERR_CLOSED: this process closed the connection
///   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or no version has that size
///   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_client_peer_credentials(
    client: *const keepsock_client,
    out: *mut keepsock_credentials,
    size: usize,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `client` during the call; `out` has `size`
    // writable bytes; `error` is NULL or writable.
    let (client, out, error) =
        unsafe { (Ref::new(client), Structure::new(out, size), ErrorOut::new(error)) };
    fill(client, out, error, "peer credentials", |socket| {
        Ok(credentials_to_c(socket.peer_credentials()?))
    })
}

/// Writes at least one byte, and passes descriptors with the first byte (SCM_RIGHTS). Unix sockets
/// only.
///
/// The descriptors may be files, pipes or sockets (keepsock_client_fd(), keepsock_server_fd()). The
/// peer receives its own copies; the caller keeps and closes the descriptors. On success the kernel
/// has accepted all descriptors, even if it accepted only a part of the bytes: write the rest with
/// keepsock_client_write_all(). After an error no descriptor was passed.
///
/// To pass a connection, release it afterwards with keepsock_client_release_fd() and close(2):
/// keepsock_client_close() would end it for both processes.
///
/// @param buf        The bytes.
/// @param len        The number of bytes, greater than 0.
/// @param fds        The descriptors.
/// @param fds_count  The number of descriptors, at most 253 (SCM_MAX_FD of unix(7)).
/// @param written    Receives the number of bytes that the kernel accepted.
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
///   - KEEPSOCK_ERR_UNSUPPORTED: TCP, or Windows
///   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
///   - KEEPSOCK_ERR_NO_DESCRIPTORS: too many descriptors are in transit, or RLIMIT_NOFILE is too
///     low for poll(2)
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, `len` is 0, `fds_count` is out of range, or a
///     descriptor is negative
///   - KEEPSOCK_ERR_OS: a descriptor is closed (EBADF), or another error of the system
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_client_send_fds(
    client: *mut keepsock_client,
    buf: *const c_void,
    len: usize,
    fds: *const keepsock_fd,
    fds_count: usize,
    written: *mut usize,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `client` during the call; `buf` has `len`
    // readable bytes; `fds` has `fds_count` valid elements; `written` and `error` are NULL or
    // writable.
    let (client, buf, fds, written, error) = unsafe {
        (
            Ref::new(client),
            Bytes::new(buf, len),
            Array::new(fds, fds_count, "fds"),
            Optional::new(written),
            ErrorOut::new(error),
        )
    };
    with(client, error, "write", |socket| {
        written.write(socket.send_with_descriptors(buf.get()?, &fds.descriptors()?)?);
        Ok(())
    })
}

/// Reads at least one byte, and receives descriptors that were passed with it (SCM_RIGHTS). Unix
/// sockets only.
///
/// This example passes a descriptor with one byte, and receives it:
///
/// @code
/// static int32_t pass(keepsock_client *client, keepsock_fd fd)
/// {
///     return keepsock_client_send_fds(client, "d", 1, &fd, 1, NULL, NULL);
/// }
///
/// static keepsock_fd receive(keepsock_client *client)
/// {
///     char byte;
///     keepsock_fd fd = -1;
///     keepsock_client_recv_fds(client, &byte, 1, &fd, 1, NULL, NULL, NULL, NULL);
///     return fd;
/// }
/// @endcode
///
/// Received descriptors are close-on-exec, and the caller closes them. keepsock_client_from_fd()
/// and keepsock_server_from_fd() adopt them. The kernel closes descriptors that do not fit, and
/// `fds_truncated` reports it.
///
/// Descriptors arrive with the first of the bytes that they were sent with. If another function
/// reads those bytes, the kernel closes the descriptors, so a peer cannot fill this process with
/// descriptors. Buffered bytes are returned first, without descriptors.
///
/// @param buf            Receives at most `cap` bytes.
/// @param cap            The size of `buf`, greater than 0.
/// @param fds            Receives at most `fds_cap` descriptors.
/// @param fds_cap        The size of `fds`, at most 253.
/// @param len            Receives the number of bytes. 0 means end of stream.
/// @param fds_count      Receives the number of descriptors.
/// @param fds_truncated  Receives whether more descriptors were passed than fit into `fds` or into
///                       this process (MSG_CTRUNC).
/// @return KEEPSOCK_OK on success, otherwise
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
///   - KEEPSOCK_ERR_TOO_LONG: a SOCK_SEQPACKET packet was longer than the buffer and is lost
///   - KEEPSOCK_ERR_UNSUPPORTED: TCP, or Windows
///   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
///   - KEEPSOCK_ERR_NO_DESCRIPTORS: RLIMIT_NOFILE is too low for poll(2)
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, `cap` is 0, or `fds_cap` is out of range
///   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_client_recv_fds(
    client: *mut keepsock_client,
    buf: *mut c_void,
    cap: usize,
    fds: *mut keepsock_fd,
    fds_cap: usize,
    len: *mut usize,
    fds_count: *mut usize,
    fds_truncated: *mut bool,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `client` during the call; `buf` has `cap`
    // writable bytes; `fds` has `fds_cap` writable elements; `len`, `fds_count`, `fds_truncated` and
    // `error` are NULL or writable.
    let (client, buf, fds, len, fds_count, fds_truncated, error) = unsafe {
        (
            Ref::new(client),
            BytesMut::new(buf, cap),
            OutArray::new(fds, fds_cap, "fds"),
            Optional::new(len),
            Optional::new(fds_count),
            Optional::new(fds_truncated),
            ErrorOut::new(error),
        )
    };
    with(client, error, "read", |socket| {
        let fds = fds.required()?;
        let received = socket.recv_with_descriptors(buf.not_empty()?, fds_cap)?;
        len.write(received.len);
        fds_count.write(received.descriptors.len());
        fds_truncated.write(received.descriptors_truncated);
        fds.write(received.descriptors.into_iter().map(into_fd));
        Ok(())
    })
}
