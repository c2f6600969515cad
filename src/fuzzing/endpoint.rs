//! Endpoints as text.

use std::net::SocketAddr;

use super::{Input, check_printable};
use crate::types::address::Address;
use crate::types::endpoint::{Endpoint, path_of};
use crate::types::error::{ErrorKind, Result};

/// An endpoint displays as text that parses to the same endpoint, whichever way it was created.
/// An error has the right kind, and its text is one printable line.
pub fn endpoint(data: &[u8]) {
    let mut input = Input::new(data);
    let port = u16::from_le_bytes(input.array());
    let bytes = input.rest();
    let text = String::from_utf8_lossy(bytes);
    check(text.parse());
    if let Some(endpoint) = check(Endpoint::from_host_port(&text, port)) {
        assert_eq!(endpoint.port(), Some(port), "the port of {endpoint}");
    }
    let path = path_of(bytes.to_vec());
    if let Some(endpoint) = check(Endpoint::unix(&path)) {
        assert!(endpoint.to_string().starts_with("unix:"), "{endpoint}");
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        check(Ok(Endpoint::from(address)));
    }
}

fn check(parsed: Result<Endpoint>) -> Option<Endpoint> {
    match parsed {
        Ok(endpoint) => {
            let text = endpoint.to_string();
            check_printable(&text);
            let again: Endpoint = text.parse().unwrap();
            assert_eq!(again, endpoint, "{text:?}");
            if let Ok(address) = Address::try_from(&endpoint) {
                check_printable(&address.to_string());
                let of_address = Endpoint::of(&address).to_string();
                assert!(of_address.parse::<Endpoint>().is_ok(), "{of_address:?}");
            }
            Some(endpoint)
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::InvalidEndpoint, "{error}");
            check_printable(&error.to_string());
            None
        }
    }
}
