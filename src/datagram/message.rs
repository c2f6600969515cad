//! A datagram to send, and a received datagram.

use std::net::SocketAddr;
use std::time::SystemTime;

use crate::types::address::Address;
use crate::types::credentials::Credentials;

/// The metadata of a datagram that [`DatagramSocket::recv`](crate::DatagramSocket::recv) received.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Datagram {
    /// The number of bytes stored in the buffer.
    pub len: usize,
    /// The original length of the datagram. Only Linux and Windows report it; on other
    /// systems it equals `len`.
    pub original_len: usize,
    /// Whether the buffer was too short. The bytes beyond it are lost.
    pub truncated: bool,
    /// The sender. A Unix socket that is not bound has no name, so a reply is impossible.
    pub from: Address,
    /// The destination address, which may be a multicast or broadcast address. UDP only, as are `local`,
    /// `interface`, `ttl` and `tos`.
    pub to: Option<SocketAddr>,
    /// The address of this machine from which a [`reply`](crate::DatagramSocket::reply) leaves.
    pub local: Option<SocketAddr>,
    /// The index of the receiving interface, if the socket is bound to a wildcard or group address or
    /// requests [metadata](crate::DatagramSocket::set_recv_metadata), and the system reports it.
    pub interface: Option<u32>,
    /// The remaining TTL (hop limit), with
    /// [metadata](crate::DatagramSocket::set_recv_metadata).
    pub ttl: Option<u8>,
    /// The TOS byte (IPv4) or traffic class (IPv6), with
    /// [metadata](crate::DatagramSocket::set_recv_metadata): DSCP in the upper six bits (RFC 2474), ECN in
    /// the lower two (RFC 3168).
    pub tos: Option<u8>,
    /// The time at which the kernel received the datagram, in the system's real time, with
    /// [metadata](crate::DatagramSocket::set_recv_metadata). Also for Unix sockets.
    pub received_at: Option<SystemTime>,
    /// The process, user and group that sent the datagram, as the kernel knows them, with
    /// [metadata](crate::DatagramSocket::set_recv_metadata) or
    /// [`allowed_uid`](crate::SocketOptions::allowed_uid). Unix sockets on Linux only.
    pub credentials: Option<Credentials>,
}

/// A datagram for [`DatagramSocket::send_batch`](crate::DatagramSocket::send_batch).
///
/// ```
/// use keepsock::Outgoing;
/// # use std::net::SocketAddr;
/// let one = Outgoing::to(b"hello", SocketAddr::from(([127, 0, 0, 1], 7788)));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Outgoing<'a> {
    /// The payload.
    pub bytes: &'a [u8],
    /// The destination; `None`: the peer of a connected socket.
    pub to: Option<Address>,
    /// The source address; `None`: the system chooses. For UDP sockets that are bound to a wildcard;
    /// other sockets accept only the address to which they are bound. The port has no effect.
    pub local: Option<SocketAddr>,
    /// The outgoing interface, which link-local and multicast addresses need. It must exist, and has no
    /// effect on other addresses.
    pub interface: Option<u32>,
}

impl<'a> Outgoing<'a> {
    /// Creates a datagram to the peer of a connected socket.
    ///
    /// ```
    /// let one = keepsock::Outgoing::new(b"hello");
    /// ```
    pub fn new(bytes: &'a (impl AsRef<[u8]> + ?Sized)) -> Outgoing<'a> {
        Outgoing { bytes: bytes.as_ref(), to: None, local: None, interface: None }
    }

    /// Creates a datagram to an address.
    ///
    /// ```
    /// # use keepsock::{Address, Outgoing};
    /// let one = Outgoing::to(b"hello", Address::UnixPath("/run/app.sock".into()));
    /// ```
    pub fn to(bytes: &'a (impl AsRef<[u8]> + ?Sized), to: impl Into<Address>) -> Outgoing<'a> {
        Outgoing { to: Some(to.into()), ..Outgoing::new(bytes) }
    }

    /// Creates a reply, as [`DatagramSocket::reply`](crate::DatagramSocket::reply) sends it.
    ///
    /// ```
    /// # use keepsock::{DatagramSocket, Outgoing};
    /// # let server = DatagramSocket::bind("127.0.0.1:0")?;
    /// # let client = DatagramSocket::connect(server.endpoint())?;
    /// # client.send(b"question")?;
    /// let question = server.recv(&mut [0; 1500])?;
    /// server.send_batch(&[Outgoing::reply(&question, b"one"), Outgoing::reply(&question, b"two")])?;
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn reply(reply_to: &Datagram, bytes: &'a (impl AsRef<[u8]> + ?Sized)) -> Outgoing<'a> {
        let (local, interface) = (reply_to.local, reply_to.interface);
        Outgoing { local, interface, ..Outgoing::to(bytes, reply_to.from.clone()) }
    }
}

/// A buffer for [`DatagramSocket::recv_batch`](crate::DatagramSocket::recv_batch), and the datagram
/// received into it.
///
/// ```
/// let mut buf = [0; 1500];
/// let incoming = keepsock::Incoming::new(&mut buf);
/// assert!(incoming.datagram().is_none());
/// ```
#[derive(Debug)]
pub struct Incoming<'a> {
    pub(super) buf: &'a mut [u8],
    pub(super) datagram: Option<Datagram>,
}

impl<'a> Incoming<'a> {
    /// Creates an entry that receives into this buffer.
    ///
    /// ```
    /// let mut buf = [0; 1500];
    /// let incoming = keepsock::Incoming::new(&mut buf);
    /// ```
    pub fn new(buf: &'a mut [u8]) -> Incoming<'a> {
        Incoming { buf, datagram: None }
    }

    /// Returns the metadata of the last received datagram; `None` before the first.
    ///
    /// ```
    /// let mut buf = [0; 1500];
    /// assert!(keepsock::Incoming::new(&mut buf).datagram().is_none());
    /// ```
    pub fn datagram(&self) -> Option<&Datagram> {
        self.datagram.as_ref()
    }

    /// Returns the bytes of the last received datagram; empty before the first.
    ///
    /// ```
    /// let mut buf = [0; 1500];
    /// assert!(keepsock::Incoming::new(&mut buf).bytes().is_empty());
    /// ```
    pub fn bytes(&self) -> &[u8] {
        self.datagram().and_then(|d| self.buf.get(..d.len)).unwrap_or_default()
    }

    /// Returns the complete buffer.
    ///
    /// ```
    /// let mut buf = [0; 1500];
    /// assert_eq!(keepsock::Incoming::new(&mut buf).buffer().len(), 1500);
    /// ```
    pub fn buffer(&mut self) -> &mut [u8] {
        self.buf
    }
}
