//! The PROXY header of an accepted connection.

use crate::ffi::{
    ErrorOut, Out, Ref, Result, address_to_c, keepsock_address, keepsock_client, keepsock_error,
    with,
};
use crate::{Address, Error, ErrorKind};

/// Waits for the PROXY header of a connection from a trusted proxy, and receives it.
///
/// keepsock_client_five_tuple() returns the addresses of the proxy's client from then on. A read
/// does the same first, so only a program that needs the address before it reads calls this
/// function. Without a header to receive it returns immediately. No byte after the header is lost.
///
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_MALFORMED: the first bytes are not a header, or the proxy closed its side within
///     it; the connection was reset
///   - KEEPSOCK_ERR_WOULD_BLOCK: non-blocking mode, and the header is incomplete
///   - KEEPSOCK_ERR_RESET: the proxy reset the connection
///   - KEEPSOCK_ERR_DEAD: the proxy vanished
///   - KEEPSOCK_ERR_STALLED: the proxy takes no data
///   - KEEPSOCK_ERR_UNREACHABLE: the network reported the proxy unreachable
///   - KEEPSOCK_ERR_IDLE_TIMEOUT: the idle or first-byte timeout expired; or the header did not
///     arrive within keepsock_options_set_proxy_timeout(), and the connection was reset
///   - KEEPSOCK_ERR_HEARTBEAT_TIMEOUT: nothing was received after a heartbeat
///   - KEEPSOCK_ERR_CANCELLED: the cancel token was fired
///   - KEEPSOCK_ERR_DRAINING: the service is draining
///   - KEEPSOCK_ERR_CLOSED: this process closed the connection
///   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
///   - KEEPSOCK_ERR_NO_DESCRIPTORS: RLIMIT_NOFILE is too low for poll(2)
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: `client` is NULL
///   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_client_read_proxy_header(
    client: *mut keepsock_client,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `client` during the call, and `error` is NULL
    // or writable.
    let (client, error) = unsafe { (Ref::new(client), ErrorOut::new(error)) };
    with(client, error, "PROXY header", |socket| socket.read_proxy_header())
}

/// Returns the address of the proxy through which the client has connected.
///
/// keepsock_client_five_tuple() returns the addresses of the client.
///
/// @param address  Receives the address.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_NOT_FOUND: no PROXY header with the addresses of a client was received
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_client_proxy_address(
    client: *const keepsock_client,
    address: *mut keepsock_address,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that no thread frees `client` during the call, and `address` and
    // `error` are NULL or writable.
    let (client, address, error) =
        unsafe { (Ref::new(client), Out::new(address, "address"), ErrorOut::new(error)) };
    with(client, error, OPERATION, |socket| proxy_to_c(socket.proxy_address(), address))
}

/// Writes the address of a proxy.
pub(crate) fn proxy_to_c(proxy: Option<Address>, address: Out<'_, keepsock_address>) -> Result<()> {
    let out = address.required()?;
    match proxy {
        Some(Address::Inet(proxy)) => out.write(address_to_c(Some(&proxy))),
        _ => return Err(Error::new(ErrorKind::NotFound, OPERATION).detail(NO_PROXY)),
    }
    Ok(())
}

const OPERATION: &str = "proxy address";
const NO_PROXY: &str = "no PROXY header with the addresses of a client was received";
