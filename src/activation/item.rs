//! The descriptors that were passed to this process, and how an endpoint selects one.

use std::net::SocketAddr;
use std::path::{Component, Path, PathBuf};

use crate::sys::SockRef;

use super::OPERATION;
use crate::listener::is_dual;
use crate::socket_file::{self, Identity, InheritedSocket};
use crate::sys::{self, Borrowed, Owned};
use crate::types::address::{Address, canonical};
use crate::types::error::{Error, ErrorKind};

/// A socket that this process owns and that no call has adopted yet.
#[derive(Debug)]
pub(super) struct Item {
    pub number: u32,
    pub name: String,
    pub adopted: InheritedSocket,
}

/// A descriptor that was passed and that this process does not own: a connection that no call has
/// adopted yet, or a descriptor that is not a socket.
#[derive(Debug)]
pub(super) struct Unowned {
    pub number: u32,
    pub name: String,
    /// The kind of descriptor, in words.
    pub description: String,
    /// The identity of a connection. Another socket may have its number later.
    pub connection: Option<Identity>,
}

impl Item {
    fn socket(&self) -> Borrowed<'_> {
        sys::borrow(&self.adopted.socket)
    }

    pub(super) fn is_listener(&self) -> bool {
        matches!(sys::connection_kind(self.socket()), Ok(Some(kind)) if kind.listens)
    }

    /// Whether it is a listener for SOCK_SEQPACKET or for SOCK_STREAM.
    pub(super) fn is_listener_for(&self, seqpacket: bool) -> bool {
        let kind = sys::connection_kind(self.socket());
        matches!(kind, Ok(Some(kind)) if kind.listens && kind.packets == seqpacket)
    }

    pub(super) fn is_datagram(&self) -> bool {
        sys::is_datagram(self.socket()).is_ok_and(|is| is)
    }

    /// Whether it is a datagram socket that is not connected.
    #[cfg(feature = "datagram")]
    pub(super) fn is_unconnected_datagram(&self) -> bool {
        let socket = self.socket();
        self.is_datagram() && SockRef::from(&socket).peer_addr().is_err()
    }

    pub(super) fn address(&self) -> Option<Address> {
        SockRef::from(&self.socket()).local_addr().ok().map(|name| sys::to_address(&name))
    }

    pub(super) fn is_bound_to_path(&self, path: &Path) -> bool {
        match (self.address(), &self.adopted.file) {
            // The predecessor may have had another working directory when it bound a relative path.
            (Some(Address::UnixPath(_)), Some(file)) => file.is_at(path),
            // A service manager does not pass the identity of the file.
            (Some(Address::UnixPath(bound)), None) => {
                socket_file::is_same(&bound, path) && socket_file::is_socket(path)
            }
            _ => false,
        }
    }

    pub(super) fn is_bound_to(&self, wanted: SocketAddr, dual: bool) -> bool {
        let socket = self.socket();
        let bound = SockRef::from(&socket).local_addr().ok().and_then(|name| name.as_socket());
        bound.is_some_and(|bound| is_same_binding((wanted, dual), (bound, is_dual(socket, bound))))
    }

    pub(super) fn wrong_kind(&self) -> Error {
        wrong_kind(self.number, &self.name, &sys::describe(self.socket()))
    }
}

impl Unowned {
    pub(super) fn wrong_kind(&self) -> Error {
        wrong_kind(self.number, &self.name, &self.description)
    }
}

/// Whether the path can be the file of the socket: the file is a socket, and the socket is bound to
/// the path. The process that passes the sockets states the path, and this process removes the file, so a
/// wrong path must not remove another file.
pub(super) fn is_file_of(socket: &Owned, path: &Path) -> bool {
    let name = SockRef::from(&sys::borrow(socket)).local_addr();
    let Ok(Address::UnixPath(bound)) = name.map(|name| sys::to_address(&name)) else {
        return false;
    };
    // The predecessor may have had another working directory when it bound a relative path.
    let end = bound.components().skip_while(|part| *part == Component::CurDir);
    let is_named = if bound.is_absolute() {
        std::path::absolute(&bound).is_ok_and(|bound| bound == path)
    } else {
        path.is_absolute() && path.ends_with(end.collect::<PathBuf>())
    };
    is_named && socket_file::is_socket(path)
}

fn wrong_kind(number: u32, name: &str, description: &str) -> Error {
    let what = format!("descriptor {number}, named {name:?}, is {description}");
    Error::new(ErrorKind::WrongState, OPERATION).detail(what)
}

/// Whether a socket is bound to the wanted address. Each address has a flag: it is the IPv6
/// wildcard, and also accepts IPv4.
fn is_same_binding(
    (wanted, wanted_dual): (SocketAddr, bool),
    (bound, dual): (SocketAddr, bool),
) -> bool {
    use SocketAddr::V6;
    let (wanted, bound) = (canonical(wanted), canonical(bound));
    let same_zone = match (wanted, bound) {
        (V6(wanted), V6(bound)) => wanted.scope_id() == bound.scope_id(),
        _ => true,
    };
    wanted.ip() == bound.ip()
        && (wanted.port() == bound.port() || wanted.port() == 0)
        && same_zone
        && wanted_dual == dual
}

#[cfg(test)]
mod tests {
    use super::*;

    /// L7: an inherited socket with the same port and another address is not the wanted one.
    #[test]
    fn is_same_binding_compares_address_port_zone_and_family() {
        let at = |text: &str, dual| (text.parse().unwrap(), dual);
        for (wanted, bound, is) in [
            (at("127.0.0.1:80", false), at("127.0.0.1:80", false), true),
            (at("127.0.0.1:0", false), at("127.0.0.1:80", false), true),
            (at("127.0.0.1:80", false), at("127.0.0.1:81", false), false),
            (at("127.0.0.1:80", false), at("0.0.0.0:80", false), false),
            (at("0.0.0.0:80", false), at("0.0.0.0:80", false), true),
            (at("0.0.0.0:80", false), at("[::]:80", true), false),
            (at("[::]:80", true), at("[::]:80", true), true),
            (at("[::]:80", true), at("[::]:80", false), false),
            (at("[::]:80", false), at("[::]:80", false), true),
            (at("[::]:80", false), at("[::]:80", true), false),
            (at("[::1]:80", false), at("[::1]:80", false), true),
            (at("[fe80::1%2]:80", false), at("[fe80::1%3]:80", false), false),
            (at("127.0.0.1:80", false), at("[::ffff:127.0.0.1]:80", false), true),
        ] {
            assert_eq!(is_same_binding(wanted, bound), is, "{wanted:?} {bound:?}");
        }
    }
}
