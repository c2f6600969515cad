//! The descriptor of a `keepsock_client`.

use crate::ffi::{
    ErrorOut, Out, Ref, fd_of_socket, into_fd, keepsock_client, keepsock_error, keepsock_fd, with,
};

/// Borrows the descriptor, for poll(2), epoll(7) or setsockopt(2). Do not close it.
///
/// The kernel reports a reset once. On Linux the library still detects a reset of a TCP connection
/// after the program has read SO_ERROR, or after a forked child has observed the reset. If the peer
/// sent FIN before the reset, the close reason then stays KEEPSOCK_CLOSE_PEER_CLOSED. A Unix socket
/// keeps no trace of a reset, and reads then report the end of the stream: do not read its SO_ERROR.
///
/// On Linux the descriptor is in blocking mode unless keepsock_client_set_nonblocking() was last
/// called with true. On other systems it stays non-blocking until it is released.
///
/// @param fd  Receives the descriptor.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_CLOSED: this process closed the connection
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL
///   - KEEPSOCK_ERR_OS: the descriptor cannot become non-blocking, or another error of the system
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_client_fd(
    client: *const keepsock_client,
    fd: *mut keepsock_fd,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `client` during the call, and `fd` and
    // `error` are NULL or writable.
    let (client, fd, error) =
        unsafe { (Ref::new(client), Out::new(fd, "fd"), ErrorOut::new(error)) };
    with(client, error, "descriptor", |socket| {
        let out = fd.required()?;
        out.write(fd_of_socket(&socket.borrow()?));
        Ok(())
    })
}

/// Releases the descriptor: the connection stays open, and the caller owns and closes it.
///
/// The object is then closed and must still be freed. The descriptor has no SO_RCVTIMEO and
/// SO_SNDTIMEO. It is in blocking mode unless keepsock_client_set_nonblocking() was last called
/// with true. Other options stay as they are. A handler may release the connection that it was
/// lent: it then continues outside the service.
///
/// To leave a connection to a forked child, the parent releases the descriptor and calls close(2).
/// The child releases its copy and adopts it with keepsock_client_from_fd(). The child can do so
/// although the parent's threads were inside calls at the time of fork(2).
///
/// @param fd  Receives the descriptor.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_WRONG_STATE: another thread is inside a call; buffered bytes are left
///     (keepsock_client_buffered()): read them first; the PROXY header was not received; or a
///     message of keepsock_client_write_message() is unfinished and the write side is open
///   - KEEPSOCK_ERR_CLOSED: this process closed the connection
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_client_release_fd(
    client: *mut keepsock_client,
    fd: *mut keepsock_fd,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `client` during the call, and `fd` and
    // `error` are NULL or writable.
    let (client, fd, error) =
        unsafe { (Ref::new(client), Out::new(fd, "fd"), ErrorOut::new(error)) };
    with(client, error, "release", |socket| {
        let out = fd.required()?;
        out.write(into_fd(socket.release()?));
        Ok(())
    })
}
