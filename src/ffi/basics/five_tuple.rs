//! `keepsock_five_tuple`.

use std::ffi::c_char;

use crate::FiveTuple;
use crate::ffi::{fill_text, versioned};
#[cfg(feature = "diag")]
use crate::{
    Endpoint, Error, ErrorKind, Protocol,
    ffi::{NO_OPERATION, Result, invalid},
};

/// The protocol, the addresses and the ports of a connection.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct keepsock_five_tuple {
    /// A keepsock_protocol.
    pub protocol: i32,
    /// The local port, in host byte order; 0 for a Unix socket.
    pub local_port: u16,
    /// The peer's port, in host byte order; 0 for a Unix socket.
    pub remote_port: u16,
    /// The local address: "127.0.0.1", "::1", a path, or "". A text of more than 111 bytes is
    /// truncated, which `text` is not.
    pub local_address: [c_char; 112],
    /// The peer's address.
    pub remote_address: [c_char; 112],
    /// The whole five-tuple as text: "tcp 127.0.0.1:3337 -> 127.0.0.1:7788".
    pub text: [c_char; 1024],
}

versioned!(keepsock_five_tuple: 1256);

pub(crate) fn tuple_to_c(tuple: &FiveTuple) -> keepsock_five_tuple {
    let mut value = keepsock_five_tuple {
        protocol: tuple.protocol as i32,
        local_port: tuple.local.port(),
        remote_port: tuple.remote.port(),
        local_address: [0; 112],
        remote_address: [0; 112],
        text: [0; 1024],
    };
    fill_text(&mut value.local_address, &tuple.local.host());
    fill_text(&mut value.remote_address, &tuple.remote.host());
    fill_text(&mut value.text, &tuple.to_string());
    value
}

/// The TCP connection between the addresses of a structure.
#[cfg(feature = "diag")]
pub(crate) fn tcp_from_c(tuple: &keepsock_five_tuple) -> Result<FiveTuple> {
    if tuple.protocol != Protocol::Tcp as i32 {
        let error = Error::new(ErrorKind::Unsupported, NO_OPERATION);
        return Err(error.detail("the five-tuple is not that of a TCP connection"));
    }
    let side = |address: &[c_char], port| {
        let bytes: Vec<_> = address.iter().take_while(|c| **c != 0).map(|c| *c as u8).collect();
        let host = std::str::from_utf8(&bytes).map_err(|_| invalid("an address is not UTF-8"))?;
        let endpoint = Endpoint::from_host_port(host, port)?.to_socket_addr();
        endpoint.map_err(|e| e.during(NO_OPERATION))
    };
    let local = side(&tuple.local_address, tuple.local_port)?;
    Ok(FiveTuple::tcp(local, side(&tuple.remote_address, tuple.remote_port)?))
}
