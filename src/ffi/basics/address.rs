//! `keepsock_address`.

use std::ffi::c_char;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use crate::ffi::{AddressIn, ErrorOut, Out, Result, Text, TextOut, call, invalid, keepsock_error};

/// An IP address and a port (struct sockaddr_storage). Later versions add no members.
///
/// keepsock_address_parse() and keepsock_address_text() convert it from and to text.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct keepsock_address {
    /// In network byte order. IPv4: the first four bytes, the rest is 0.
    pub ip: [u8; 16],
    /// The interface index of a link-local IPv6 address, or 0.
    pub zone: u32,
    /// The port, in host byte order.
    pub port: u16,
    /// 4 or 6. 1: a Unix socket, whose name is in another member. 0: no address.
    pub family: u16,
}

/// The family of a Unix address, whose name is in another member of the structure.
pub(crate) const UNIX: u16 = 1;

pub(crate) const NO_ADDRESS: keepsock_address =
    keepsock_address { ip: [0; 16], zone: 0, port: 0, family: 0 };

#[inline]
pub(crate) fn address_to_c(address: Option<&SocketAddr>) -> keepsock_address {
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
pub(crate) fn address_from_c(c: &keepsock_address) -> Result<Option<SocketAddr>> {
    let [a, b, c0, d, ..] = c.ip;
    match c.family {
        0 => Ok(None),
        4 => Ok(Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::new(a, b, c0, d)), c.port))),
        6 => Ok(Some(SocketAddrV6::new(Ipv6Addr::from(c.ip), c.port, 0, c.zone).into())),
        UNIX => Err(invalid("the address is a Unix socket: pass it as an endpoint")),
        other => {
            Err(invalid(format!("the address has family {other}, which is neither IPv4 nor IPv6")))
        }
    }
}

/// Converts a numeric endpoint to an address: "192.0.2.1:80", "[fe80::1%eth0]:80" (inet_pton(3)).
///
/// @param endpoint  The text. Host names are rejected.
/// @param address   Receives the address.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_INVALID_ENDPOINT: the text is not a numeric endpoint, or this machine lacks
///     the zone
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or not UTF-8
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_address_parse(
    endpoint: *const c_char,
    address: *mut keepsock_address,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that `endpoint` is NULL or ends with NUL, and `address` and
    // `error` are NULL or writable.
    let (endpoint, address, error) = unsafe {
        (Text::new(endpoint, "endpoint"), Out::new(address, "address"), ErrorOut::new(error))
    };
    call(error, "address", || {
        let out = address.required()?;
        out.write(address_to_c(Some(&endpoint.endpoint()?.to_socket_addr()?)));
        Ok(())
    })
}

/// Converts an address to an endpoint: "192.0.2.1:80", "[fe80::1%3]:80" (inet_ntop(3)).
///
/// @param address        An address.
/// @param buf            Receives the text.
/// @param cap            The size of `buf`: 64 for every address.
/// @param required_size  Receives the size that the text needs.
/// @return KEEPSOCK_OK on success, otherwise
///   - KEEPSOCK_ERR_TOO_LONG: `cap` is too small
///   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or the family is neither 4 nor 6
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keepsock_address_text(
    address: *const keepsock_address,
    buf: *mut c_char,
    cap: usize,
    required_size: *mut usize,
    error: *mut *mut keepsock_error,
) -> i32 {
    // SAFETY: the header requires that `address` is NULL or readable; `buf` has `cap` writable
    // bytes; `required_size` and `error` are NULL or writable.
    let (address, text, error) = unsafe {
        (
            AddressIn::new(address, "address"),
            TextOut::new(buf, cap, required_size),
            ErrorOut::new(error),
        )
    };
    call(error, "address", || text.write(address.get()?))
}
