//! `keepsock_address`.

use std::ffi::c_char;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use super::{Result, guard, invalid, keepsock_error, output, write_text};

/// An IP address and a port. keepsock_address_parse() makes one of text,
/// keepsock_address_text() text of one. It never grows.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct keepsock_address {
    /// In network order; of an IPv4 address the first four bytes, the rest is 0.
    pub ip: [u8; 16],
    /// The interface's index of a link-local IPv6 address, or 0.
    pub zone: u32,
    /// The port, in the machine's order.
    pub port: u16,
    /// 4 or 6; 1: a Unix socket, whose name is elsewhere; 0: there is no address.
    pub family: u16,
}

/// The family of an address whose name is elsewhere.
pub(super) const UNIX: u16 = 1;

pub(super) const NO_ADDRESS: keepsock_address =
    keepsock_address { ip: [0; 16], zone: 0, port: 0, family: 0 };

#[inline]
pub(super) fn address_to_c(address: Option<&SocketAddr>) -> keepsock_address {
    match address {
        None => NO_ADDRESS,
        Some(SocketAddr::V4(v4)) => {
            let [a, b, c, d] = v4.ip().octets();
            let ip = [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            keepsock_address { ip, zone: 0, port: v4.port(), family: 4 }
        }
        Some(SocketAddr::V6(v6)) => {
            let (ip, zone) = (v6.ip().octets(), v6.scope_id());
            keepsock_address { ip, zone, port: v6.port(), family: 6 }
        }
    }
}

/// `None`: there is no address.
pub(super) fn address_from_c(
    c: &keepsock_address,
    operation: &'static str,
) -> Result<Option<SocketAddr>> {
    let [a, b, c0, d, ..] = c.ip;
    match c.family {
        0 => Ok(None),
        4 => Ok(Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::new(a, b, c0, d)), c.port))),
        6 => Ok(Some(SocketAddrV6::new(Ipv6Addr::from(c.ip), c.port, 0, c.zone).into())),
        UNIX => Err(invalid(operation, "the name of a Unix socket goes as an endpoint")),
        other => Err(invalid(operation, format!("address of family {other}"))),
    }
}

/// # Safety
/// `address` is null or readable.
pub(super) unsafe fn address(
    address: *const keepsock_address,
    operation: &'static str,
    name: &str,
) -> Result<SocketAddr> {
    let address = output(address.cast_mut(), operation, name)?;
    // SAFETY: not null, and readable by the caller's promise.
    let address = unsafe { address.read() };
    let known = address_from_c(&address, operation)?;
    known.ok_or_else(|| invalid(operation, format!("{name} has no address")))
}

/// Makes an address of a numeric endpoint: "192.0.2.1:80", "[fe80::1%eth0]:80".
///
/// @param endpoint  Its text; names are not addresses.
/// @param address   Receives it.
/// @param error     See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, KEEPSOCK_ERR_INVALID_ENDPOINT, _INVALID_ARGUMENT. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_address_parse(
    endpoint: *const c_char,
    address: *mut keepsock_address,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "address";
    let body = || {
        let out = output(address, OPERATION, "address")?;
        // SAFETY: a string as the header asks.
        let parsed = unsafe { super::endpoint(endpoint, OPERATION) }?.to_socket_addr()?;
        // SAFETY: not null, and writable as the header asks.
        unsafe { out.write(address_to_c(Some(&parsed))) };
        Ok(())
    };
    // SAFETY: null, or writable as the header asks.
    unsafe { guard(error, OPERATION, body) }
}

/// Prints an address as an endpoint: "192.0.2.1:80", "[fe80::1%3]:80".
///
/// @param address  An address.
/// @param buf      Receives the text, with its NUL.
/// @param cap      Its size; 64 is enough for all.
/// @param needed   Receives the size that is needed, also when cap is too small; may be NULL.
/// @param error    See keepsock_error; may be NULL.
/// @return KEEPSOCK_OK, KEEPSOCK_ERR_TOO_LONG, _INVALID_ARGUMENT (family 0, too). Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_address_text(
    address: *const keepsock_address,
    buf: *mut c_char,
    cap: usize,
    needed: *mut usize,
    error: *mut *mut keepsock_error,
) -> i32 {
    const OPERATION: &str = "address";
    let body = || {
        // SAFETY: null, or readable as the header asks.
        let address = unsafe { self::address(address, OPERATION, "address") }?;
        // SAFETY: as the header asks.
        unsafe { write_text(buf, cap, needed, address, OPERATION) }
    };
    // SAFETY: null, or writable as the header asks.
    unsafe { guard(error, OPERATION, body) }
}
