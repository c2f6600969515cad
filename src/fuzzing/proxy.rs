//! Headers of the PROXY protocol.

use std::net::{IpAddr, SocketAddr};

use super::Input;
use crate::types::address::{Address, canonical};
use crate::types::proxy::{HeaderParser, HeaderState, Proxied, ProxyHeader};

/// The result of a header does not depend on how it is split. A printed header parses to its
/// addresses, and the parser takes no byte that follows.
pub fn proxy(data: &[u8]) {
    let mut input = Input::new(data);
    let splits = input.clone();
    if input.byte() % 4 == 0 {
        let addresses = (address(&mut input), address(&mut input));
        let rest = input.rest();
        for header in [ProxyHeader::v1(Some(addresses)), ProxyHeader::v2(Some(addresses))] {
            let inet = |address| Address::Inet(canonical(address));
            let (source, destination) = (inet(addresses.0), inet(addresses.1));
            let expected = Proxied::Client { source, destination };
            check(header.as_bytes(), rest, splits.clone(), Some(expected));
        }
        for header in [ProxyHeader::v1(None), ProxyHeader::v2(None)] {
            check(header.as_bytes(), rest, splits.clone(), Some(Proxied::Own));
        }
    } else {
        let mut splits = Input::new(input.part());
        splits.byte();
        check(input.rest(), b"", splits, None);
    }
}

fn address(input: &mut Input) -> SocketAddr {
    let ip: IpAddr = match input.byte() % 4 {
        0 => input.array::<16>().into(),
        1 => std::net::Ipv4Addr::from(input.array::<4>()).to_ipv6_mapped().into(),
        _ => input.array::<4>().into(),
    };
    SocketAddr::new(ip, u16::from_le_bytes(input.array()))
}

/// Feeds a header, and bytes that follow it, at once and in parts.
fn check(header: &[u8], after: &[u8], mut splits: Input, expected: Option<Proxied>) {
    let all = [header, after].concat();
    let (taken, whole) = HeaderParser::default().feed(&all);
    if let Some(expected) = expected {
        assert_eq!((taken, &whole), (header.len(), &HeaderState::Complete(expected)), "{all:?}");
    }
    let lengths: Vec<usize> = {
        let zeros = vec![0; all.len()];
        let mut inner = Input::new(splits.rest());
        let parts = inner.split(&zeros);
        parts.iter().map(|part| part.len()).collect()
    };
    let mut parser = HeaderParser::default();
    let (mut start, mut consumed, mut state) = (0, 0, HeaderState::Incomplete);
    for len in lengths {
        if state != HeaderState::Incomplete {
            break;
        }
        let (more, now) = parser.feed(&all[start..start + len]);
        assert!(more <= len);
        if now == HeaderState::Incomplete {
            assert_eq!(more, len, "the parser left bytes of an incomplete header");
        }
        consumed += more;
        start += len;
        state = now;
    }
    assert_eq!(state, whole, "{all:?}");
    if matches!(whole, HeaderState::Complete(_) | HeaderState::Incomplete) {
        assert_eq!(consumed, taken, "{all:?}");
    }
}
