//! What only Unix sockets have: descriptors beside the bytes, credentials. And files to sockets.

use std::ffi::{c_int, c_void};

use super::client::{give_up, structures, with};
use super::{
    bytes, bytes_mut, invalid, keepsock_client, keepsock_error, keepsock_fd, output,
    write_if_wanted, write_sized,
};
use crate::{ClientSocket, Credentials};

/// Who is at the other end of a Unix socket: the process that called connect(), or, for the
/// connecting side, the one that called listen(), as it was then.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct keepsock_credentials {
    /// The process; -1 where the system does not tell, and for one of a PID namespace that this
    /// process does not see into.
    pub pid: i64,
    /// Its effective user.
    pub uid: u32,
    /// Its effective group.
    pub gid: u32,
}

pub(super) fn credentials_to_c(peer: Credentials) -> keepsock_credentials {
    keepsock_credentials { pid: peer.pid.map_or(-1, i64::from), uid: peer.uid, gid: peer.gid }
}

/// Who the peer is, by what the kernel knows. Unix sockets only.
///
/// @param client  A connection.
/// @param out     Filled in on success.
/// @param size    sizeof *out.
/// @param error   See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, KEEPSOCK_ERR_UNSUPPORTED (TCP, which knows addresses only), _CLOSED,
///         _INVALID_ARGUMENT, _OS. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_client_peer_credentials(
    client: *const keepsock_client,
    out: *mut keepsock_credentials,
    size: usize,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "peer credentials";
    let body = |socket: &ClientSocket| {
        let out = output(out, OPERATION, "out")?;
        let value = credentials_to_c(socket.peer_credentials()?);
        // SAFETY: out has `size` bytes as the header asks.
        unsafe { write_sized(out, size, &value, OPERATION) }
    };
    // SAFETY: as the header asks.
    unsafe { with(client, error, OPERATION, body) }
}

/// Writes some bytes, as keepsock_client_write() does, and with the first of them descriptors:
/// files, sockets (keepsock_client_fd(), keepsock_server_fd()), pipes. The peer gets descriptors of
/// its own for them; those that were given stay the caller's to close. Unix sockets only.
///
/// Succeeding, the kernel has all of the descriptors, whatever it took of the bytes: write the rest
/// with keepsock_client_write_all(). A connection that is passed is one and the same in both
/// processes: give it up here with keepsock_client_release_fd() and close(), for
/// keepsock_client_close() would end it for both.
///
/// @param client   A connection.
/// @param buf      The bytes.
/// @param len      How many; above 0.
/// @param fds      The descriptors.
/// @param count    How many; at most 253 (SCM_MAX_FD of unix(7)).
/// @param written  Receives the number of bytes that the kernel took.
/// @param error    See keepsock_error; may be NULL.
/// @return Those of keepsock_client_write(), and then no descriptor was sent;
///         KEEPSOCK_ERR_NO_DESCRIPTORS: too many are on their way already;
///         KEEPSOCK_ERR_UNSUPPORTED for TCP, and on Windows. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_client_write_fds(
    client: *mut keepsock_client,
    buf: *const c_void,
    len: usize,
    fds: *const keepsock_fd,
    count: usize,
    written: *mut usize,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "write";
    let body = |socket: &ClientSocket| {
        let written = output(written, OPERATION, "written")?;
        // SAFETY: a buffer, and `count` numbers as the header asks.
        let (buf, fds) =
            unsafe { (bytes(buf, len, OPERATION)?, structures(fds, count, OPERATION, "fds")?) };
        let borrowed =
            fds.iter().map(|fd| borrow(*fd, OPERATION)).collect::<super::Result<Vec<_>>>();
        let n = socket.write_with_descriptors(buf, &borrowed?)?;
        // SAFETY: not null, and writable as the header asks.
        unsafe { written.write(n) };
        Ok(())
    };
    // SAFETY: as the header asks.
    unsafe { with(client, error, OPERATION, body) }
}

/// A descriptor that C lends for a call.
pub(super) fn borrow<'a>(
    fd: keepsock_fd,
    operation: &'static str,
) -> super::Result<crate::sys::Borrowed<'a>> {
    #[cfg(unix)]
    {
        if fd < 0 {
            return Err(invalid(operation, "a descriptor is negative"));
        }
        // SAFETY: the header asks for open descriptors. A number that is none is an error of the
        // kernel's (EBADF).
        Ok(unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) })
    }
    #[cfg(windows)]
    {
        if fd == usize::MAX {
            return Err(invalid(operation, "a descriptor is INVALID_SOCKET"));
        }
        // SAFETY: the header asks for open sockets.
        Ok(unsafe { std::os::windows::io::BorrowedSocket::borrow_raw(fd as _) })
    }
}

/// Reads some bytes, as keepsock_client_read() does, and at most max of the descriptors that came
/// with them. They are close-on-exec and the caller's to close; keepsock_client_from_fd() and
/// keepsock_server_from_fd() take them. Others are closed, which lost tells. Unix sockets only.
///
/// Descriptors come with the first of the bytes that they were sent with, and whoever reads those
/// by another function has the kernel close them. So a peer cannot fill this process with
/// descriptors that it does not want. Bytes that were read ahead are given first; none came with
/// them.
///
/// @param client  A connection.
/// @param buf     Filled with at most cap bytes.
/// @param cap     Its size; above 0.
/// @param fds     Filled with at most max descriptors; may be NULL if max is 0.
/// @param max     How many are wanted; at most 253.
/// @param len     Receives the number of bytes; 0: the peer closed its side.
/// @param count   Receives the number of descriptors.
/// @param lost    Receives whether more came than were wanted, or than this process may have; may
///                be NULL.
/// @param error   See keepsock_error; may be NULL.
/// @return Those of keepsock_client_read(); KEEPSOCK_ERR_UNSUPPORTED for TCP, and on Windows.
///         KEEPSOCK_ERR_TOO_LONG on a socket for packets. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_client_read_fds(
    client: *mut keepsock_client,
    buf: *mut c_void,
    cap: usize,
    fds: *mut keepsock_fd,
    max: usize,
    len: *mut usize,
    count: *mut usize,
    lost: *mut bool,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "read";
    let body = |socket: &ClientSocket| {
        let len = output(len, OPERATION, "len")?;
        let count = output(count, OPERATION, "count")?;
        if max > 0 {
            output(fds, OPERATION, "fds")?;
        }
        if cap == 0 {
            return Err(invalid(OPERATION, "cap is 0"));
        }
        // SAFETY: a buffer as the header asks.
        let buf = unsafe { bytes_mut(buf, cap, OPERATION) }?;
        let received = socket.read_with_descriptors(buf, max)?;
        // SAFETY: not null, or not written, and writable as the header asks: no more than `max`
        // descriptors come.
        unsafe {
            len.write(received.len);
            count.write(received.descriptors.len());
            write_if_wanted(lost, received.lost);
            for (i, fd) in received.descriptors.into_iter().enumerate() {
                fds.add(i).write(give_up(fd));
            }
        }
        Ok(())
    };
    // SAFETY: as the header asks.
    unsafe { with(client, error, OPERATION, body) }
}

/// Writes len bytes of a file from offset on, or what there is up to its end. All within one write
/// timeout, in one turn: what other threads write comes before or after. The file's own position is
/// not used and not moved. On Linux the bytes do not pass through this process (sendfile());
/// elsewhere, and where sendfile() refuses the file, it is read in pieces and sent. If it fails,
/// keepsock_error_transferred() says how many bytes the kernel had taken.
///
/// @param client  A connection.
/// @param fd      A file that is open for reading; not a pipe. It stays the caller's.
/// @param offset  Where to begin.
/// @param len     How many bytes; UINT64_MAX for all that there are.
/// @param sent    Receives how many were sent; may be NULL.
/// @param error   See keepsock_error; may be NULL.
/// @return Those of keepsock_client_write(); KEEPSOCK_ERR_INVALID_ARGUMENT for a directory, a pipe
///         or a socket, and for a file that is not open for reading; _OS: it cannot be read;
///         _WRONG_STATE for a socket for packets; _UNSUPPORTED on Windows. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_client_send_file(
    client: *mut keepsock_client,
    fd: c_int,
    offset: u64,
    len: u64,
    sent: *mut u64,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "send file";
    let body = |socket: &ClientSocket| {
        if fd < 0 {
            return Err(invalid(OPERATION, "fd is negative"));
        }
        let n = send(socket, fd, offset, len)?;
        // SAFETY: null or writable as the header asks.
        unsafe { write_if_wanted(sent, n) };
        Ok(())
    };
    // SAFETY: as the header asks.
    unsafe { with(client, error, OPERATION, body) }
}

#[cfg(unix)]
fn send(socket: &ClientSocket, fd: c_int, offset: u64, len: u64) -> super::Result<u64> {
    // SAFETY: the header asks for an open descriptor. A number that is none is an error of the
    // kernel's (EBADF).
    socket.send_file(unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) }, offset, len)
}

/// A number of C's is no handle of Windows.
#[cfg(windows)]
fn send(_socket: &ClientSocket, _fd: c_int, _offset: u64, _len: u64) -> super::Result<u64> {
    Err(crate::Error::new(crate::ErrorKind::Unsupported, "send file"))
}
