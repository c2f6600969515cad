//! Receiving datagrams.

use std::ffi::{c_char, c_void};
use std::path::PathBuf;
use std::ptr::NonNull;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::Address;
use crate::ffi::{
    BytesMut, ErrorOut, Items, NO_ADDRESS, Optional, OutArray, Ref, Result, Structure, TextOut,
    UNIX, Versioned, address_from_c, address_to_c, call, credentials_to_c, into_fd, invalid,
    keepsock_address, keepsock_credentials, keepsock_datagram, keepsock_error, keepsock_fd, null,
    versioned, with, with_frequent,
};
use crate::internal::{Batch, Buffers, Details, Facts, MAX_BATCH};

/// A received datagram without its bytes: source, destination, length and metadata.
///
/// Members that need keepsock_datagram_set_recv_metadata() say so.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct keepsock_datagram_info {
    /// The sender. Family 1: a Unix socket, whose name is unix_name.
    pub from: keepsock_address,
    /// The destination, which may be a multicast or broadcast address. Family 0: a Unix socket, or
    /// the system does not report it.
    pub to: keepsock_address,
    /// The local address that keepsock_datagram_reply() sends from. Family 0: the kernel chooses.
    pub local: keepsock_address,
    /// When the kernel received it, in nanoseconds since 1970; -1: unknown. Needs
    /// keepsock_datagram_set_recv_metadata().
    pub received_at_ns: i64,
    /// The number of bytes in the buffer.
    pub len: usize,
    /// The number of bytes of the datagram. Systems other than Linux and Windows do not report
    /// it: there it is len.
    pub original_len: usize,
    /// The index of the receiving interface; 0: unknown. Known for a socket that is bound to a
    /// wildcard or multicast address, and with keepsock_datagram_set_recv_metadata().
    pub interface_index: u32,
    /// The remaining TTL or hop limit; -1: unknown. Needs keepsock_datagram_set_recv_metadata().
    pub ttl: i16,
    /// The TOS byte (IPv4) or traffic class (IPv6): DSCP in the upper six bits, ECN in the lower two;
    /// -1: unknown. Needs keepsock_datagram_set_recv_metadata().
    pub tos: i16,
    /// Whether the buffer was too short, and the rest of the datagram is lost (MSG_TRUNC).
    pub truncated: bool,
    /// Whether credentials is set: for Unix sockets on Linux, with
    /// keepsock_datagram_set_recv_metadata() or keepsock_options_add_allowed_uid().
    pub has_credentials: bool,
    /// The number of bytes of unix_name; 0: the sender has no name and cannot receive a reply.
    pub unix_name_len: u16,
    /// The name of the sending Unix socket, as in sun_path of unix(7). An abstract name starts with
    /// NUL.
    pub unix_name: [u8; 108],
    /// The sending process, its user and its group, as the kernel verified them.
    pub credentials: keepsock_credentials,
}

versioned!(keepsock_datagram_info: 232);

/// An item of keepsock_datagram_recv_batch(): a buffer, and the datagram that was received into it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct keepsock_recv_item {
    /// The buffer; may be NULL if cap is 0. On a connected socket, and on a Unix socket with allowed
    /// users, the call may exchange the buffers of two items.
    pub buf: *mut c_void,
    /// The size of the buffer in bytes.
    pub cap: usize,
    /// Receives the length, the sender and the metadata.
    pub info: keepsock_datagram_info,
}

versioned!(keepsock_recv_item: 248);

// write_info() writes the whole structure.
const _: () = assert!(<keepsock_datagram_info as Versioned>::SIZES.len() == 1);
const _: () = assert!(<keepsock_recv_item as Versioned>::SIZES.len() == 1);

/// Writes the members of a large structure directly to the memory of the C program.
///
/// # Safety
/// `info` points to `size` writable bytes, at least as many as this version of the structure has.
#[inline(always)]
pub(crate) unsafe fn write_info(info: *mut keepsock_datagram_info, size: usize, facts: &Facts<'_>) {
    // SAFETY: the caller guarantees that every member, and the `size - known` bytes after the last
    // one, are writable. A boolean of the program may have any value, so it is written by a pointer.
    unsafe {
        (*info).unix_name_len = 0;
        match facts.from {
            Address::Inet(from) => (*info).from = address_to_c(Some(from)),
            from => {
                (*info).from = keepsock_address { family: UNIX, ..NO_ADDRESS };
                write_unix_name(info, from);
            }
        }
        (*info).to = address_to_c(facts.to);
        (*info).local = address_to_c(facts.local);
        (&raw mut (*info).truncated).write(facts.truncated);
        (*info).len = facts.len;
        (*info).original_len = facts.original_len;
        match facts.details {
            Some(details) => write_details(info, details),
            None => {
                ((*info).interface_index, (*info).ttl, (*info).tos) = (0, -1, -1);
                (*info).received_at_ns = -1;
                (&raw mut (*info).has_credentials).write(false);
            }
        }
        // A later version of the structure has more members.
        let known = size_of::<keepsock_datagram_info>();
        if size > known {
            info.cast::<u8>().add(known).write_bytes(0, size - known);
        }
    }
}

/// # Safety
/// `info` is writable.
unsafe fn write_details(info: *mut keepsock_datagram_info, details: &Details) {
    let or_unknown = |byte: Option<u8>| byte.map_or(-1, i16::from);
    let nanos = |at: SystemTime| at.duration_since(UNIX_EPOCH).map_or(-1, |d| d.as_nanos() as i64);
    // SAFETY: the caller guarantees that every member is writable.
    unsafe {
        (*info).interface_index = details.interface;
        ((*info).ttl, (*info).tos) = (or_unknown(details.ttl), or_unknown(details.tos));
        (*info).received_at_ns = details.at.map_or(-1, nanos);
        (&raw mut (*info).has_credentials).write(details.credentials.is_some());
        if let Some(credentials) = details.credentials {
            (*info).credentials = credentials_to_c(credentials);
        }
    }
}

/// # Safety
/// `info` is writable.
#[cold]
unsafe fn write_unix_name(info: *mut keepsock_datagram_info, from: &Address) {
    let (before, name) = match from {
        Address::UnixPath(path) => (0, path.as_os_str().as_encoded_bytes()),
        Address::UnixAbstract(name) => (1, name.as_slice()),
        _ => return,
    };
    let mut unix_name = [0; 108];
    // Every name that the kernel returns fits.
    for (c, byte) in unix_name.iter_mut().skip(before).zip(name) {
        *c = *byte;
    }
    let len = u16::try_from(before + name.len()).unwrap_or(0).min(108);
    // SAFETY: the caller guarantees that both members are writable.
    unsafe { ((*info).unix_name, (*info).unix_name_len) = (unix_name, len) };
}

/// The structure that a receiving function fills.
struct InfoOut<'a>(Structure<'a, keepsock_datagram_info>);

impl InfoOut<'_> {
    #[inline]
    fn checked(self) -> Result<Self> {
        self.0.checked().map(InfoOut)
    }

    /// Fills a structure that [`checked`](InfoOut::checked) has accepted.
    #[inline]
    fn fill(&self, facts: &Facts<'_>) {
        let (info, size) = self.0.parts();
        // SAFETY: `Structure::new` requires `size` writable bytes, and `checked` has found that
        // they are enough.
        unsafe { write_info(info, size, facts) };
    }
}

/// The sender of a received datagram, which is the argument `what`.
///
/// # Safety
/// `info` is readable. Its booleans may have any value.
pub(crate) unsafe fn sender(info: *const keepsock_datagram_info, what: &str) -> Result<Address> {
    // SAFETY: the caller guarantees a readable structure, and every value of these members is valid.
    let (from, name, len) = unsafe {
        (
            (&raw const (*info).from).read(),
            (&raw const (*info).unix_name).read(),
            (&raw const (*info).unix_name_len).read(),
        )
    };
    if from.family != UNIX {
        let known = address_from_c(&from)?;
        let known = known.ok_or_else(|| invalid(format!("{what} has no address")))?;
        return Ok(Address::Inet(known));
    }
    let name = name.get(..usize::from(len));
    Ok(match name.ok_or_else(|| invalid("unix_name_len is above 108"))? {
        [] => Address::UnixUnnamed,
        [0, name @ ..] => Address::UnixAbstract(name.to_vec()),
        path => Address::UnixPath(path_of(path)),
    })
}

/// Writes the sender of a datagram as an endpoint: "192.0.2.1:80", "unix:/run/app.sock",
/// "unix:@name".
///
/// keepsock_datagram_send_to() and keepsock_datagram_connect() accept the text. A Unix sender
/// without a name is "unix:(unnamed)" and cannot receive a reply.
///
/// @param info           A received datagram.
/// @param buf            Receives the text.
/// @param cap            The size of `buf`.
/// @param required_size  Receives the size that the text needs.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_TOO_LONG: `cap` is too small
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or `info` has no sender
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_datagram_info_sender(
    info: *const keepsock_datagram_info,
    buf: *mut c_char,
    cap: usize,
    required_size: *mut usize,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that `info` is NULL or readable; `buf` has `cap` writable bytes;
    // `required_size` and `error` are NULL or writable.
    let (from, text, error) = unsafe {
        (
            NonNull::new(info.cast_mut()).map(|info| sender(info.as_ptr(), "info")),
            TextOut::new(buf, cap, required_size),
            ErrorOut::new(error),
        )
    };
    call(error, "sender", || text.write(from.ok_or_else(|| null("info"))??))
}

/// Receives one datagram (recvfrom(2), recvmsg(2)).
///
/// Bytes that do not fit into `buf` are lost, and `truncated` of `out` reports it. Descriptors
/// that were sent with the datagram are closed; keepsock_datagram_recv_fds() receives them. ICMP
/// errors of sent datagrams do not end the call: see keepsock_datagram_recv_error().
///
/// @param buf  Receives the bytes.
/// @param cap  The size of `buf`.
/// @param out  Receives the length, the sender and the metadata.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_TIMED_OUT: the read timeout expired
///   - KEEPSOCK_ERR_WOULD_BLOCK: non-blocking mode, and no datagram is queued, or the call has
///     skipped 1,024 datagrams of denied senders
///   - KEEPSOCK_ERR_CANCELLED: the cancel token was fired
///   - KEEPSOCK_ERR_CLOSED: this process closed the socket, or keepsock_datagram_service_stop()
///     ended receiving
///   - KEEPSOCK_ERR_REFUSED: the peer refused a datagram, with
///     keepsock_datagram_set_fail_on_refused()
///   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory; the datagram stays queued and the socket
///     stays usable
///   - KEEPSOCK_ERR_NO_DESCRIPTORS: RLIMIT_NOFILE is too low for poll(2)
///   - KEEPSOCK_ERR_PERMISSION_DENIED: a policy of this machine, such as a seccomp filter,
///     forbids the call
///   - KEEPSOCK_ERR_UNSUPPORTED: the kernel lacks the system call
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, out of range, or no version has that size
///   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_datagram_recv(
    datagram: *mut keepsock_datagram,
    buf: *mut c_void,
    cap: usize,
    out: *mut keepsock_datagram_info,
    size: usize,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `datagram` during the call; `buf` has `cap`
    // writable bytes; `out` has `size` writable bytes; `error` is NULL or writable.
    let (datagram, buf, out, error) = unsafe {
        (
            Ref::new(datagram),
            BytesMut::new(buf, cap),
            InfoOut(Structure::new(out, size)),
            ErrorOut::new(error),
        )
    };
    with_frequent(datagram, error, "receive", |socket| {
        // The checks come first because a received datagram cannot be put back into the queue.
        let out = out.checked()?;
        socket.try_recv_with(buf.get()?, false, |facts| out.fill(facts))
    })
}

/// Copies the oldest datagram and leaves it for the next receive (MSG_PEEK).
///
/// The call waits as keepsock_datagram_recv() does. On Linux `original_len` of `out` is the length
/// of the datagram, also if `cap` is 0.
///
/// @param buf  Receives the bytes.
/// @param cap  The size of `buf`.
/// @param out  Receives the length, the sender and the metadata.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_TIMED_OUT: the read timeout expired
///   - KEEPSOCK_ERR_WOULD_BLOCK: non-blocking mode, and no datagram is queued, or the call has
///     skipped 1,024 datagrams of denied senders
///   - KEEPSOCK_ERR_CANCELLED: the cancel token was fired
///   - KEEPSOCK_ERR_CLOSED: this process closed the socket, or keepsock_datagram_service_stop()
///     ended receiving
///   - KEEPSOCK_ERR_REFUSED: the peer refused a datagram, with
///     keepsock_datagram_set_fail_on_refused()
///   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory; the datagram stays queued and the socket
///     stays usable
///   - KEEPSOCK_ERR_NO_DESCRIPTORS: RLIMIT_NOFILE is too low for poll(2)
///   - KEEPSOCK_ERR_PERMISSION_DENIED: a policy of this machine, such as a seccomp filter,
///     forbids the call
///   - KEEPSOCK_ERR_UNSUPPORTED: the socket coalesces datagrams
///     (keepsock_options_set_udp_gro()), or the kernel lacks the system call
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, out of range, or no version has that size
///   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_datagram_peek(
    datagram: *mut keepsock_datagram,
    buf: *mut c_void,
    cap: usize,
    out: *mut keepsock_datagram_info,
    size: usize,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `datagram` during the call; `buf` has `cap`
    // writable bytes; `out` has `size` writable bytes; `error` is NULL or writable.
    let (datagram, buf, out, error) = unsafe {
        (
            Ref::new(datagram),
            BytesMut::new(buf, cap),
            InfoOut(Structure::new(out, size)),
            ErrorOut::new(error),
        )
    };
    with_frequent(datagram, error, "receive", |socket| {
        let out = out.checked()?;
        socket.try_recv_with(buf.get()?, true, |facts| out.fill(facts))
    })
}

/// Receives one datagram and the descriptors that were sent with it (SCM_RIGHTS). Unix sockets
/// only.
///
/// It works like keepsock_datagram_recv(). The descriptors are close-on-exec, and the caller closes
/// them. Descriptors that do not fit are closed, and `fds_truncated` reports it. If another
/// function receives the datagram, all of its descriptors are closed.
///
/// @param datagram       A Unix socket.
/// @param buf            Receives the bytes.
/// @param cap            The size of `buf`.
/// @param fds            Receives at most `fds_cap` descriptors.
/// @param fds_cap        The size of `fds`, at most 253.
/// @param out            Receives the length, the sender and the metadata.
/// @param fds_count      Receives the number of descriptors.
/// @param fds_truncated  Receives whether more descriptors were sent than fit into `fds` or into
///                       this process (MSG_CTRUNC).
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_TIMED_OUT: the read timeout expired
///   - KEEPSOCK_ERR_WOULD_BLOCK: non-blocking mode, and no datagram is queued, or the call has
///     skipped 1,024 datagrams of denied senders
///   - KEEPSOCK_ERR_CANCELLED: the cancel token was fired
///   - KEEPSOCK_ERR_CLOSED: this process closed the socket, or keepsock_datagram_service_stop()
///     ended receiving
///   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory; the datagram stays queued and the socket
///     stays usable
///   - KEEPSOCK_ERR_NO_DESCRIPTORS: RLIMIT_NOFILE is too low for poll(2)
///   - KEEPSOCK_ERR_PERMISSION_DENIED: a policy of this machine, such as a seccomp filter,
///     forbids the call
///   - KEEPSOCK_ERR_UNSUPPORTED: a UDP socket, Windows, or the kernel lacks the system call
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, out of range, or no version has that size
///   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_datagram_recv_fds(
    datagram: *mut keepsock_datagram,
    buf: *mut c_void,
    cap: usize,
    fds: *mut keepsock_fd,
    fds_cap: usize,
    out: *mut keepsock_datagram_info,
    size: usize,
    fds_count: *mut usize,
    fds_truncated: *mut bool,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `datagram` during the call; `buf` has `cap`
    // writable bytes; `fds` has `fds_cap` writable elements; `out` has `size` writable bytes;
    // `fds_count`, `fds_truncated` and `error` are NULL or writable.
    let (datagram, buf, fds, out, fds_count, fds_truncated, error) = unsafe {
        (
            Ref::new(datagram),
            BytesMut::new(buf, cap),
            OutArray::new(fds, fds_cap, "fds"),
            InfoOut(Structure::new(out, size)),
            Optional::new(fds_count),
            Optional::new(fds_truncated),
            ErrorOut::new(error),
        )
    };
    with(datagram, error, "receive", |socket| {
        // The checks come first because a received datagram cannot be put back into the queue.
        let (out, fds) = (out.checked()?, fds.required()?);
        let (datagram, received) = socket.recv_with_descriptors(buf.get()?, fds_cap)?;
        datagram.with_meta(|facts| out.fill(facts));
        fds_count.write(received.descriptors.len());
        fds_truncated.write(received.descriptors_truncated);
        fds.write(received.descriptors.into_iter().map(into_fd));
        Ok(())
    })
}

/// Receives all queued datagrams that fit, at least one (recvmmsg(2)).
///
/// The call waits for the first datagram only. It receives at most 64 datagrams; on Linux that is
/// one system call.
///
/// @param items     An array of items, whose buffers do not overlap.
/// @param count     The number of items. 0 receives nothing.
/// @param size      sizeof *items.
/// @param received  Receives the number of datagrams, which are in the first items.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_TIMED_OUT: the read timeout expired
///   - KEEPSOCK_ERR_WOULD_BLOCK: non-blocking mode, and no datagram is queued, or the call has
///     skipped 1,024 datagrams of denied senders
///   - KEEPSOCK_ERR_CANCELLED: the cancel token was fired
///   - KEEPSOCK_ERR_CLOSED: this process closed the socket, or keepsock_datagram_service_stop()
///     ended receiving
///   - KEEPSOCK_ERR_REFUSED: the peer refused a datagram, with
///     keepsock_datagram_set_fail_on_refused()
///   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory; the datagram stays queued and the socket
///     stays usable
///   - KEEPSOCK_ERR_NO_DESCRIPTORS: RLIMIT_NOFILE is too low for poll(2)
///   - KEEPSOCK_ERR_PERMISSION_DENIED: a policy of this machine, such as a seccomp filter,
///     forbids the call
///   - KEEPSOCK_ERR_UNSUPPORTED: the kernel lacks the system call
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, out of range, or no version has that size
///   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_datagram_recv_batch(
    datagram: *mut keepsock_datagram,
    items: *mut keepsock_recv_item,
    count: usize,
    size: usize,
    received: *mut usize,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `datagram` during the call; `items` has
    // `count` items of `size` bytes, whose buffers have the size that they state; `received` and
    // `error` are NULL or writable.
    let (datagram, items, received, error) = unsafe {
        (
            Ref::new(datagram),
            Items::new(items, count, size),
            Optional::new(received),
            ErrorOut::new(error),
        )
    };
    with(datagram, error, "receive", |socket| {
        received.write(socket.recv_into(&mut items.checked()?)?);
        Ok(())
    })
}

impl Items<'_, keepsock_recv_item> {
    /// Rejects NULL, a wrong size, and NULL as the buffer of an item.
    fn checked(self) -> Result<Self> {
        // The socket uses no more items than MAX_BATCH.
        let items = self.required()?.at_most(MAX_BATCH);
        for at in 0..items.len() {
            let item = items.item(at);
            // SAFETY: `item` points to an item, and `Items::new` requires a buffer of `cap` bytes.
            // The other members, which may have no value yet, are not read.
            let buffer = unsafe {
                let (buf, cap) = (&raw const (*item).buf, &raw const (*item).cap);
                BytesMut::new(buf.read(), cap.read())
            };
            buffer.get()?;
        }
        Ok(items)
    }
}

impl Buffers for Items<'_, keepsock_recv_item> {
    fn count(&self) -> usize {
        self.len()
    }

    fn buffer(&mut self, at: usize) -> &mut [u8] {
        let item = self.item(at);
        // SAFETY: `checked` has found a buffer of `cap` bytes, or `cap` is 0 and the pointer is
        // replaced. `&mut self` keeps the result the only reference to the items.
        unsafe {
            let (buf, cap) = ((*item).buf, (*item).cap);
            let buf = if cap == 0 { NonNull::dangling().as_ptr() } else { buf.cast() };
            std::slice::from_raw_parts_mut(buf, cap)
        }
    }
}

impl Batch for Items<'_, keepsock_recv_item> {
    #[inline(always)]
    fn put(&mut self, at: usize, facts: &Facts<'_>) {
        let item = self.item(at);
        let room = self.item_size() - std::mem::offset_of!(keepsock_recv_item, info);
        // SAFETY: `info` is the last member of the item, which has `item_size()` bytes.
        unsafe { write_info(&raw mut (*item).info, room, facts) };
    }

    fn swap(&mut self, a: usize, b: usize) {
        let (a, b) = (self.item(a), self.item(b));
        // SAFETY: `a` and `b` point to items of the array. Two pointers to one item are permitted.
        unsafe {
            (&raw mut (*a).buf).swap(&raw mut (*b).buf);
            (&raw mut (*a).cap).swap(&raw mut (*b).cap);
        }
    }
}

#[cfg(unix)]
fn path_of(bytes: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    PathBuf::from(std::ffi::OsStr::from_bytes(bytes))
}

#[cfg(not(unix))]
fn path_of(bytes: &[u8]) -> PathBuf {
    PathBuf::from(String::from_utf8_lossy(bytes).into_owned())
}
